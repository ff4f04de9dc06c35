"""The MACE eraser: refine, train one LoRA a concept, fuse. What it makes of each concept stays in the erasure's folder."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from auditor.digest import sha256_json
from auditor.erasers.mace.options import MaceOptions
from auditor.errors import UsageError
from auditor.files import room_on_disk, write_whole
from auditor.plugin import door
from auditor.plugin.contracts import Eraser, Erasure, MaskRequest, MaskSource, OptionsModel
from auditor.plugin.loader import make_plugin
from auditor.templates import ERASURE_TEMPLATES

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.diffusion.model import TextToImage
    from auditor.erasers.closed_form import LowRank
    from auditor.erasers.mace.kept import ConceptFolder
    from auditor.erasers.mace.lora import ConceptImages, LoraSetting, LoraTask, TrainedLora
    from auditor.policy import Concept, Sampler

_IMAGE_OPTIONS = ("images", "masks", "size", "sampling_steps", "sampling_guidance")
_LORA_OPTIONS = ("steps", "learning_rate", "rank", "batch", "importance_sampling", "mark", "loss")


class Mace(Eraser):
    """Closed-form cross-attention refinement, LoRAs against the concept's own attention, closed-form fusion."""

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
        self._check(erasure)
        concepts = erasure.concepts
        prior, domain = self._captions(erasure)
        plan: dict[str, Any] = {
            "concepts": {concept.name: concept.mapping for concept in concepts},
            "prior": {"captions": len(prior), "second": len(domain), "weights": self._weights()},
        }
        if not options.lora:
            return plan
        reused = sum(self._earlier(erasure, concept) is not None for concept in concepts)
        if erasure.reuse is not None and not reused:
            raise UsageError("None of these concepts was erased there with these settings, so there is nothing to reuse.")
        new = len(concepts) - reused
        return plan | {
            "reused": reused,
            "images": new * options.images,
            "unet_evaluations": 2 * new * options.images * options.sampling_steps,
            "training_evaluations": new * options.steps * options.batch,
        }

    def erase(self, erasure: Erasure) -> dict[str, Any]:
        """Edit keys and values of every cross-attention in place; every other weight stays bit for bit."""
        self._check(erasure)
        if erasure.folder is not None:
            return self._erase(erasure, erasure.folder)
        with tempfile.TemporaryDirectory() as folder:
            return self._erase(erasure, Path(folder))

    def _erase(self, erasure: Erasure, folder: Path) -> dict[str, Any]:
        import torch
        from safetensors.torch import save

        from auditor.erasers.closed_form import cross_attention_projections, fuse, refinement
        from auditor.erasers.mace.kept import ConceptFolder
        from auditor.erasers.mace.prompts import concept_grams

        options: MaceOptions = self.options
        clock = _Clock()
        model = erasure.model
        projections = cross_attention_projections(model.unet)
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
        prior = self._prior(erasure, record["prior"])
        clock.lap("prompts")
        refined = refinement(mapping, aligned, prior["refinement"], options.lambda_identity)
        record["refinement"] = {"condition": refined.condition, "ridge": refined.ridge}
        belongs = self._belonging(erasure, record["prior"])
        with room_on_disk(folder):
            write_whole(folder / "refined.safetensors", save({"factor": refined.factor.contiguous()}, {"format": "pt"}))
        original = {name: weight.detach().cpu().clone() for name, weight in projections.items()}
        clock.lap("refinement")
        if options.lora:
            self._draw_images(erasure, kept, belongs)  # by the base, before it is edited
            clock.lap("images")
        with torch.no_grad():
            for name, weight in projections.items():
                weight.copy_(original[name].double() @ refined.factor)
        erasure.on_step("refine", 1, 1)
        if options.lora:
            record["loras"] = self._train(erasure, kept, belongs)
            clock.lap("loras")
            loras = self._read(kept)
            if options.fusion == "sum":
                _add(projections, loras)
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
        change = sum(float((weight.detach().cpu() - original[name]).square().sum()) for name, weight in projections.items())
        size = sum(float(weight.square().sum()) for weight in original.values())
        torch.cuda.empty_cache()
        return record | {"relative_change": (change / size) ** 0.5, "seconds": clock.laps}

    # -- what is asked for -------------------------------------------------------------------------------------------

    def _check(self, erasure: Erasure) -> None:
        """Everything that can be known to be wrong before anything is drawn."""
        from auditor.erasers.closed_form import cross_attention_projections
        from auditor.erasers.mace.prompts import check_concept

        if not cross_attention_projections(erasure.model.unet):
            raise UsageError("MACE edits cross-attention, and this model has none.")
        names = tuple(f"{number:02}" for number in range(self.options.images))
        for concept in erasure.concepts:
            check_concept(concept, erasure.model)
            if self.options.lora and self._earlier(erasure, concept) is None:
                door.call(self._source, self._source.check, concept, names)
        self._check_priors(erasure)

    def _check_priors(self, erasure: Erasure) -> None:
        """A weight without anything to weigh would do nothing, and look as if it did."""
        options: MaceOptions = self.options
        weighs = any(options.prior_weights().values())
        first, second = self._captions(erasure)
        if weighs and not first:
            raise UsageError("lambda1 and lambda2 weigh a prior, and there is none: give captions, preserve, retained concepts, or zeros.")
        if options.domain_weight and not (weighs and second):
            raise UsageError("domain_weight multiplies lambda1 and lambda2 on concepts of the domain: one of these is missing.")
        if options.cache is not None:
            try:
                options.cache.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"The cache {options.cache} cannot be made: {error.strerror}.") from error

    def _weights(self) -> dict[str, dict[str, float]]:
        """What a row of each prior weighs in each closed form, and the whole first prior in rows of a concept's prompts."""
        from auditor.erasers.mace.prior import REFERENCE_ROWS

        options: MaceOptions = self.options
        return {
            form: {"first": weight, "second": weight * options.domain_weight, "first_in_rows": weight * REFERENCE_ROWS}
            for form, weight in options.prior_weights().items()
        }

    def _captions(self, erasure: Erasure) -> tuple[list[str], list[str]]:
        """The captions of the prior and of the second prior."""
        from auditor.erasers.mace.prior import read_captions

        options: MaceOptions = self.options
        erased = {name.casefold() for concept in erasure.concepts for name in (concept.name, *concept.synonyms)}
        domains = {concept.domain for concept in erasure.concepts}

        def prompts(names: tuple[str, ...], retained: list[Concept]) -> list[str]:
            listed = dict.fromkeys((*names, *(concept.name for concept in retained)))
            templates = dict.fromkeys((*ERASURE_TEMPLATES, *(template for concept in retained for template in concept.templates)))
            return [template.format(name) for name in listed if name.casefold() not in erased for template in templates]

        if not any(options.prior_weights().values()):
            return [], []
        prior = prompts(options.preserve, list(erasure.retain)) if options.captions is None else read_captions(options.captions)
        same = [concept for concept in erasure.retain if concept.domain in domains]
        return prior, prompts(options.domain, same) if options.domain_weight else []

    def _prior(self, erasure: Erasure, record: dict[str, Any]) -> dict[str, Tensor]:
        """The weighted Gram matrices of what must be preserved, in refinement and in fusion."""
        from auditor.erasers.mace.prior import caption_gram

        def progress(step: int, steps: int) -> None:
            erasure.on_step("prior", step, steps)

        first, second = (caption_gram(erasure.model, captions, self.options.cache, progress) for captions in self._captions(erasure))
        weights = self._weights()
        record |= {"rows": first.rows, "captions": first.captions, "weights": weights}
        record |= {"second_rows": second.rows, "second_captions": second.captions}
        return {form: weight["first"] * first.scaled() + weight["second"] * second.matrix for form, weight in weights.items()}

    # -- images ------------------------------------------------------------------------------------------------------

    def _sampler(self) -> Sampler:
        from auditor.policy import Sampler

        options: MaceOptions = self.options
        return Sampler(scheduler="dpm-solver++", steps=options.sampling_steps, guidance=options.sampling_guidance, size=options.size)

    def _made_from(self, erasure: Erasure, concept: Concept, names: tuple[str, ...]) -> dict[str, Any]:
        """What decides a concept's images, and with more options its LoRA; a file that was made from anything else is made again."""
        return {
            "format": 1,
            "base": erasure.model.digest,
            "concept": [concept.name, concept.domain, *concept.synonyms],
            "seed": erasure.seed,
            "options": self.options.model_dump(mode="json", include=set(names)),
            "templates": sha256_json(ERASURE_TEMPLATES),
            "masks": [self._source.origin, door.call(self._source, self._source.fingerprint, concept)],
        }

    def _belonging(self, erasure: Erasure, prior: dict[str, Any]) -> str:
        """A digest of all that the refined weights come from, which a LoRA belongs to."""
        pairs = [[concept.name, concept.mapping] for concept in erasure.concepts]
        decided = {key: prior[key] for key in ("captions", "second_captions", "weights")}
        return sha256_json([erasure.model.digest, pairs, decided, self.options.lambda_identity, sha256_json(ERASURE_TEMPLATES)])

    def _draw_images(self, erasure: Erasure, kept: list[ConceptFolder], belongs: str) -> None:
        """Training images and masks of every concept that has neither them nor a LoRA yet; several concepts at once where they fit."""
        import torch

        from auditor.diffusion.sampling import batch_size
        from auditor.erasers.mace.attention import draw_with_attention
        from auditor.erasers.mace.prompts import marks
        from auditor.seeds import image_seed

        options: MaceOptions = self.options
        model, sampler = erasure.model, self._sampler()
        source = self._source
        missing = [
            (concept, place)
            for concept, place in zip(erasure.concepts, kept, strict=True)
            if self._earlier(erasure, concept, belongs) is None and self._images_of(erasure, concept, place) is None
        ]
        at_once = batch_size(model, sampler)
        step = max(1, at_once // options.images)
        for start in range(0, len(missing), step):
            group = missing[start : start + step]
            prompts = [f"a photo of {concept.name}" for concept, _ in group for _ in range(options.images)]
            names = [concept.name for concept, _ in group for _ in range(options.images)]
            seeds = [image_seed(str(erasure.seed), "mace", prompt, at % options.images) for at, prompt in enumerate(prompts)]
            marked = torch.stack([marks(model, prompt, name, "phrase") for prompt, name in zip(prompts, names, strict=True)])
            parts = [
                draw_with_attention(model, prompts[at : at + at_once], marked[at : at + at_once], seeds[at : at + at_once], sampler)
                for at in range(0, len(prompts), at_once)
            ]
            latents, attention = (torch.cat(part) for part in zip(*parts, strict=True))
            for (concept, place), own, drawn in zip(group, latents.split(options.images), attention.split(options.images), strict=True):
                images = model.decode(own)[0]
                numbers = tuple(f"{number:02}" for number in range(options.images))
                masks = door.call(source, source.masks, MaskRequest(concept, images, drawn.clone(), numbers))
                if masks.shape != drawn.shape or not bool(masks.flatten(1).any(1).all()):
                    raise UsageError(f"The masks '{source.name}' of '{concept.name}' are empty in an image, or of another shape.")
                place.save("images", {"latents": own, "masks": masks.float()}, self._made_from(erasure, concept, _IMAGE_OPTIONS))
            erasure.on_step("images", start + len(group), len(missing))
        if options.keep_images:
            for place in kept:
                _save_pictures(model, place)

    def _images_of(self, erasure: Erasure, concept: Concept, place: ConceptFolder) -> ConceptImages | None:
        from auditor.erasers.mace.lora import ConceptImages

        found = place.load("images")
        if found is None or found[1] != self._made_from(erasure, concept, _IMAGE_OPTIONS):
            return None
        return ConceptImages(found[0]["latents"], found[0]["masks"])

    # -- LoRA --------------------------------------------------------------------------------------------------------

    def _setting(self) -> LoraSetting:
        from auditor.erasers.mace.lora import LoraSetting

        options: MaceOptions = self.options
        squared = options.loss == "squared"
        return LoraSetting(options.steps, options.learning_rate, options.rank, options.batch, options.importance_sampling, squared)

    def _earlier(self, erasure: Erasure, concept: Concept, belongs: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """A LoRA of this concept and these settings: this erasure's own, of the same refined weights, or one that is to be reused.

        Without ``belongs`` of this erasure's own any: nobody knows yet.
        """
        from auditor.erasers.mace.kept import ConceptFolder

        wanted = self._made_from(erasure, concept, _IMAGE_OPTIONS + _LORA_OPTIONS)
        for folder in (erasure.folder, erasure.reuse):
            found = ConceptFolder(folder, concept.name).load("loras") if folder is not None else None
            if found is None or found[1]["from"] != wanted:
                continue
            if folder is erasure.reuse or belongs is None or belongs in (found[1]["refined"], found[1].get("reused_for")):
                return found
        return None

    def _train(self, erasure: Erasure, kept: list[ConceptFolder], belongs: str) -> dict[str, Any]:
        """A LoRA for every concept that has none, written as each group ends; what is recorded of all of them."""
        from auditor.erasers.mace.kept import lora_tensors
        from auditor.erasers.mace.lora import concepts_at_once, train_loras

        model, setting = erasure.model, self._setting()
        record: dict[str, Any] = {}
        waiting: list[tuple[Concept, ConceptFolder]] = []
        for concept, place in zip(erasure.concepts, kept, strict=True):
            earlier = self._earlier(erasure, concept, belongs)
            if earlier is None:
                waiting.append((concept, place))
                continue
            tensors, made = earlier
            if made["refined"] != belongs:
                made |= {"reused_for": belongs}
            own = place.load("loras")
            if own is None or own[1] != made:
                place.save("loras", tensors, made)
            record[concept.name] = made["losses"] | ({} if made["refined"] == belongs else {"trained_on": made["refined"]})
        size = 1
        if len(waiting) > 1:
            size = concepts_at_once(model, self._task(erasure, *waiting[0]), setting, self.options.memory_gib * 2**30)
        for start in range(0, len(waiting), size):
            group = waiting[start : start + size]

            def progress(step: int, done: int = start, count: int = len(group)) -> None:
                erasure.on_step("LoRA", done * setting.steps + step * count, len(waiting) * setting.steps)

            all_trained = train_loras(model, [self._task(erasure, *each) for each in group], setting, progress)
            for trained, (concept, place) in zip(all_trained, group, strict=True):
                losses = _ends(trained)
                made = {"from": self._made_from(erasure, concept, _IMAGE_OPTIONS + _LORA_OPTIONS), "refined": belongs, "losses": losses}
                place.save("loras", lora_tensors(trained.lora), made)
                record[concept.name] = losses
            model.forget_text_states()
        return record

    def _task(self, erasure: Erasure, concept: Concept, place: ConceptFolder) -> LoraTask:
        import torch

        from auditor.digest import seed_of
        from auditor.erasers.mace.lora import LoraTask
        from auditor.erasers.mace.prompts import marks

        model, images = erasure.model, self._images_of(erasure, concept, place)
        assert images is not None
        captions = [template.format(concept.name) for template in ERASURE_TEMPLATES]
        marked = torch.stack([marks(model, caption, concept.name, self.options.mark) for caption in captions])
        return LoraTask(images, model.text_states(captions), marked, seed_of(erasure.seed, "lora", concept.name))

    def _read(self, kept: list[ConceptFolder]) -> Iterator[tuple[Tensor, dict[str, LowRank]]]:
        """Each concept's Gram matrix and LoRA, from disk, one at a time."""
        from auditor.erasers.mace.kept import lora_of

        for place in kept:
            grams, lora = place.load("grams"), place.load("loras")
            assert grams is not None and lora is not None
            yield grams[0]["own"], lora_of(lora[0])


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        """A stage has ended."""
        now = time.monotonic()
        self.laps[stage], self._last = round(now - self._last, 2), now


def _ends(trained: TrainedLora) -> dict[str, float]:
    return {"loss_first": trained.losses[0], "loss_last": trained.losses[-1]}


def _add(projections: dict[str, Tensor], concepts: Iterator[tuple[Tensor, dict[str, LowRank]]]) -> None:
    """The LoRAs simply summed, for comparison."""
    import torch

    with torch.no_grad():
        for _, lora in concepts:
            for name, weight in projections.items():
                part = lora[name.removesuffix(".weight")]
                weight.add_((part.up @ part.down).to(weight))


def _save_pictures(model: TextToImage, place: ConceptFolder) -> None:
    """A concept's training images and masks as PNG, where it has any."""
    from auditor.pictures import to_png

    found = place.load("images")
    if found is None:
        return
    folder = place.path("images").with_suffix("")
    images, _ = model.decode(found[0]["latents"].to(model.device))
    for number, (image, mask) in enumerate(zip(images, found[0]["masks"], strict=True)):
        write_whole(folder / f"{number:02}.png", to_png(image))
        write_whole(folder / f"{number:02}.mask.png", to_png((mask * 255).byte().expand(3, -1, -1)))


def _remove_others(folder: Path, kept: list[ConceptFolder]) -> None:
    """Leave nothing of concepts that are not in this erasure: what it ends with is what it is made of."""
    own = {place.path(kind) for place in kept for kind in ("grams", "loras", "images")}
    for path in folder.glob("*/*.safetensors"):
        if path not in own:
            path.unlink()
