"""The MACE eraser: refine, train one LoRA a concept, fuse. What it makes of each concept stays in the
erasure's folder."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from auditor._files.whole_files import on_disk, write_whole
from auditor.builtins.erasers.mace import preserved
from auditor.builtins.erasers.mace.job import Job
from auditor.builtins.erasers.mace.options import MaceOptions
from auditor.errors import UsageError
from auditor.plugin import _door as door
from auditor.plugin._loader import make_plugin
from auditor.plugin.contracts import Eraser, Erasure, MaskSource, OptionsModel

if TYPE_CHECKING:
    from auditor.builtins.erasers.mace.kept import ConceptFolder


class Mace(Eraser):
    """Closed-form cross-attention refinement, LoRAs against the concept's own attention, closed-form
    fusion."""

    name = "mace"
    summary = "mass concept erasure: refinement, masked-attention LoRA, fusion"
    source = "Lu et al. 2024, arXiv:2403.06135, Eq. 2, 3 and 7"

    reuses = True
    Options: ClassVar[type[OptionsModel]] = MaceOptions

    def __init__(self, options: OptionsModel) -> None:
        super().__init__(options)
        self._source: MaskSource = make_plugin("masks", self.options.masks.use, self.options.masks.options)

    def files(self) -> tuple[Path, ...]:
        """The captions; what is cached follows from them."""
        return () if self.options.captions is None else (self.options.captions,)

    def parts(self) -> tuple[MaskSource, ...]:
        """The mask source."""
        return (self._source,)

    def plan(self, erasure: Erasure) -> dict[str, Any]:
        """What would be erased, drawn and trained, and what each prior weighs."""
        options: MaceOptions = self.options
        job = self._checked(erasure)
        concepts = erasure.concepts
        prior, domain = preserved.captions(job)
        plan: dict[str, Any] = {
            "concepts": {concept.name: concept.mapping for concept in concepts},
            "prior": {
                "captions": len(prior),
                "second": len(domain),
                "weights": preserved.weights_of_priors(options),
            },
        }
        if not options.lora:
            return plan
        reused = sum(job.earlier(concept) is not None for concept in concepts)
        if erasure.reuse is not None and not reused:
            raise UsageError(
                "None of these concepts was erased there with these settings, so there is nothing to reuse."
            )
        new = len(concepts) - reused
        return plan | {
            "reused": reused,
            "images": new * options.images,
            "unet_evaluations": 2 * new * options.images * options.sampling_steps,
            "training_evaluations": new * options.steps * options.batch,
        }

    def erase(self, erasure: Erasure) -> dict[str, Any]:
        """Edit keys and values of every cross-attention in place; every other weight stays bit for bit."""
        job = self._checked(erasure)
        if erasure.folder is not None:
            return self._erase(job, erasure.folder)
        with tempfile.TemporaryDirectory() as folder:
            return self._erase(job, Path(folder))

    def _erase(self, job: Job, folder: Path) -> dict[str, Any]:
        import torch
        from safetensors.torch import save

        from auditor._diffusion.closed_form import fuse, refinement
        from auditor.builtins.erasers.mace.images import draw_images
        from auditor.builtins.erasers.mace.kept import ConceptFolder
        from auditor.builtins.erasers.mace.prompts import concept_grams
        from auditor.builtins.erasers.mace.training import add, read_loras, train

        options = job.options
        erasure = job.erasure
        clock = _Clock()
        model = erasure.model
        projections = model.projections()
        kept = [ConceptFolder(folder, concept.name) for concept in erasure.concepts]
        width = model.text_encoder.config.hidden_size
        mapping = torch.zeros(width, width, dtype=torch.float64)
        aligned = torch.zeros_like(mapping)
        for number, (concept, place) in enumerate(zip(erasure.concepts, kept, strict=True)):
            grams = concept_grams(model, concept, place, erasure.reuse)
            mapping += grams["mapping"]
            aligned += grams["aligned"]
            erasure.on_step("prompts", number + 1, len(kept))
        _remove_others(folder, kept)
        record: dict[str, Any] = {"prior": {}}
        prior = preserved.prior(job, record["prior"])
        clock.lap("prompts")
        refined = refinement(mapping, aligned, prior["refinement"], options.lambda_identity)
        record["refinement"] = {"condition": refined.condition, "ridge": refined.ridge}
        belongs = job.belonging(record["prior"])
        with on_disk(folder):
            write_whole(
                folder / "refined.safetensors",
                save({"factor": refined.factor.contiguous()}, {"format": "pt"}),
            )
        original = {name: weight.detach().cpu().clone() for name, weight in projections.items()}
        clock.lap("refinement")
        if options.lora:
            draw_images(job, kept, belongs)  # by the base, before it is edited
            clock.lap("images")
        with torch.no_grad():
            for name, weight in projections.items():
                weight.copy_(original[name].double() @ refined.factor)
        erasure.on_step("refine", 1, 1)
        if options.lora:
            record["loras"] = train(job, kept, belongs)
            clock.lap("loras")
            loras = read_loras(kept)
            if options.fusion == "sum":
                add(projections, loras)
            else:
                fusion = fuse(refined.factor, loras, prior["fusion"], options.lambda_identity)
                record["fusion"] = {"condition": fusion.condition, "ridge": fusion.ridge}
                with torch.no_grad():
                    for name, weight in projections.items():
                        weight.copy_(fusion.fused(name.removesuffix(".weight"), original[name]))
            erasure.on_step("fuse", 1, 1)
            clock.lap("fusion")
            if not options.keep_images:
                shutil.rmtree(folder / "images", ignore_errors=True)
        change = sum(
            float((weight.detach().cpu() - original[name]).square().sum())
            for name, weight in projections.items()
        )
        size = sum(float(weight.square().sum()) for weight in original.values())
        torch.cuda.empty_cache()
        return record | {"relative_change": (change / size) ** 0.5, "seconds": clock.laps}

    # -- what is asked for -----------------------------------------------------------------------------------

    def _checked(self, erasure: Erasure) -> Job:
        """The job, after everything was looked at that can be known to be wrong before anything is drawn."""
        from auditor.builtins.erasers.mace.prompts import check_concept

        if not erasure.model.projections():
            raise UsageError("MACE edits cross-attention, and this model has none.")
        job = Job(self.options, self._source, erasure)
        names = tuple(f"{number:02}" for number in range(self.options.images))
        for concept in erasure.concepts:
            check_concept(concept, erasure.model)
            if self.options.lora and job.earlier(concept) is None:
                door.call(self._source, self._source.check, concept, names)
        preserved.check_priors(job)
        return job


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        """A stage has ended."""
        now = time.monotonic()
        self.laps[stage], self._last = round(now - self._last, 2), now


def _remove_others(folder: Path, kept: list[ConceptFolder]) -> None:
    """Leave nothing of concepts that are not in this erasure: what it ends with is what it is made of."""
    own = {place.path(kind) for place in kept for kind in ("grams", "loras", "images")}
    for path in folder.glob("*/*.safetensors"):
        if path not in own:
            path.unlink()
