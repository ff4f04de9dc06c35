"""The paper's probes: ordinary fine-tuning on concepts that have nothing to do with the erased ones.

They differ only in which concepts they train on: random ones of the erased concepts' domain (section 3), of another domain
(section 5.2), or a tercile of CLIP similarity to the erased concepts (section 5.1).
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from auditor.clip_options import ClipOptions
from auditor.errors import UsageError
from auditor.plugin.contracts import OptionsModel, Probe, ProbeSetting, TrainingRequest, Update
from auditor.policy import as_read
from auditor.sets import ConceptNames, PromptTemplates

_RATES = {"lora": 1e-4, "full": 1e-5}


class FineTuneOptions(OptionsModel):
    """What to train on and how. Defaults are those of diffusers' text-to-image examples at Stable Diffusion's size."""

    candidates: ConceptNames = ()
    """Names to choose from, or a named set; erased and retained concepts are taken out."""
    prompts: PromptTemplates = ("a photo of {}",)
    """Templates with one ``{}`` each, or a named set: what the base draws and the captions say."""
    names: int = Field(default=10, ge=1)
    """How many of the candidates are trained on."""
    images_per_prompt: int = Field(default=5, ge=1)
    """Images that the base draws of each prompt, beside one that is held out."""
    folder: Path | None = None
    """A folder of captioned images (``metadata.jsonl`` with file_name and text) instead of ``candidates``."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Default: 1e-4 for LoRA, 1e-5 for full fine-tuning."""
    batch: int = Field(default=4, ge=1)
    """Images a step."""
    rank: int = Field(default=4, ge=1)
    """Of the LoRA."""
    eight_bit: bool = False
    """Adam's moments in eight bits; needs the extra ``eight-bit``."""
    gradient_checkpointing: bool | None = None
    """Default: on GPUs of less than 24 GB."""


class FineTune(Probe):
    """Fine-tuning of the UNet on images that the base draws of chosen concepts."""

    has_sham = True
    methods = ("lora", "full")
    Options: ClassVar[type[OptionsModel]] = FineTuneOptions

    @abstractmethod
    def choose(self, candidates: list[str], setting: ProbeSetting) -> list[str]:
        """``names`` of ``candidates`` (sorted, none of them erased or retained)."""

    def changes(self, method: str) -> tuple[str, ...]:
        """LoRA adds its matrices and leaves every weight; full fine-tuning may change the whole UNet."""
        return ("unet.*.lora_*",) if method == "lora" else ("unet.*",)

    def usual(self, method: str) -> dict[str, float]:
        """The learning rate of diffusers' examples."""
        return {"learning_rate": _RATES[method]}

    def training_set(self, setting: ProbeSetting) -> list[TrainingRequest] | Path:
        """Requests for the chosen concepts, or the user's own folder."""
        options: FineTuneOptions = self.options
        if options.folder is not None:
            return options.folder
        if not options.candidates:
            raise UsageError(f"The probe {self.title} has nothing to train on: give 'candidates' or 'folder' in its options.")
        candidates = sorted(name for name in set(options.candidates) if as_read(name) not in setting.forbidden)
        return [TrainingRequest(name, options.prompts, options.images_per_prompt) for name in self.choose(candidates, setting)]

    def update(self, update: Update) -> Iterator[int]:
        """Train, and yield at every dose."""
        from auditor.diffusion.finetune import Examples, Training, finetune

        options: FineTuneOptions = self.options
        rate = options.learning_rate or _RATES[update.method]
        training = Training(
            update.method,
            0.0 if update.sham else rate,
            options.batch,
            options.rank,
            eight_bit=options.eight_bit,
            checkpointing=options.gradient_checkpointing,
        )
        examples = Examples.of(update.model, update.images, update.captions)
        yield from finetune(update.model, examples, training, update.doses, update.seed, update.on_step)

    def _draw(self, candidates: list[str], setting: ProbeSetting) -> list[str]:
        if len(candidates) < self.options.names:
            raise UsageError(
                f"The probe {self.title} needs {self.options.names} concepts and has {len(candidates)} after erased and retained ones "
                "are taken out; add candidates or lower 'names'."
            )
        return random.Random(setting.seed).sample(candidates, self.options.names)  # noqa: S311 - reproducible on purpose


class InDomain(FineTune):
    """Random concepts of the erased concepts' own domain."""

    name = "in-domain"
    summary = "fine-tune on random concepts of the same domain"
    source = "Suriyakumar et al., section 3 and appendix C.1"

    def choose(self, candidates: list[str], setting: ProbeSetting) -> list[str]:
        """A random sample."""
        return self._draw(candidates, setting)


class OutOfDomain(FineTune):
    """Random concepts of another domain."""

    name = "out-of-domain"
    summary = "fine-tune on random concepts of another domain"
    source = "Suriyakumar et al., section 5.2"

    def choose(self, candidates: list[str], setting: ProbeSetting) -> list[str]:
        """A random sample."""
        return self._draw(candidates, setting)


class TercileOptions(FineTuneOptions, ClipOptions):
    """A tercile, 1 (least similar) to 3 (most similar)."""

    tercile: Literal[1, 2, 3]
    """Which third, from the least similar to the most."""
    split: Literal["interval", "count", "given"] = "interval"
    """``interval``: three equal intervals of similarity (the paper's Table 1); ``count``: three equal groups (its text); ``given``: the
    candidates are the tercile, as somebody has published it."""


class ClipTercile(FineTune):
    """Concepts of one tercile of similarity to the erased set.

    The paper names neither model nor modality. Ours: cosine of open_clip text features of the bare names, minimum over the
    erased set, as its appendix C.2 takes the minimum.
    """

    name = "clip-tercile"
    summary = "fine-tune on concepts of one tercile of CLIP similarity to the erased ones"
    source = "Suriyakumar et al., section 5.1 and appendix C.2"

    Options: ClassVar[type[OptionsModel]] = TercileOptions

    @property
    def title(self) -> str:
        """With the tercile's number."""
        return f"{self.name}-{self.options.tercile}"

    def files(self) -> tuple[Path, ...]:
        """The user's folder, and the files of the CLIP."""
        options: TercileOptions = self.options
        return (*super().files(), *options.clip_files())

    def choose(self, candidates: list[str], setting: ProbeSetting) -> list[str]:
        """A random sample of the tercile."""
        if self.options.split == "given":
            return self._draw(candidates, setting)
        from auditor.clip import load_clip

        clip = load_clip(self.options.model, self.options.pretrained)
        erased = clip.text_features([concept.name for concept in setting.policy.erase])
        similarity = (clip.text_features(candidates) @ erased.T).min(dim=1).values.tolist()
        bins = split_terciles(similarity, self.options.split)
        chosen = [name for name, tercile in zip(candidates, bins, strict=True) if tercile == self.options.tercile]
        if len(chosen) < self.options.names:
            counts = ", ".join(f"tercile {number}: {bins.count(number)}" for number in (1, 2, 3))
            raise UsageError(
                f"The probe {self.title} needs {self.options.names} concepts in its tercile ({counts}; split: {self.options.split}); "
                "lower 'names', add candidates or use split: count."
            )
        return self._draw(chosen, setting)


def split_terciles(similarity: list[float], split: str) -> list[int]:
    """The tercile, 1 to 3, of every value: by equal intervals between minimum and maximum, or by equal counts."""
    if split == "count":
        order = sorted(range(len(similarity)), key=similarity.__getitem__)
        tercile = {index: 1 + 3 * rank // len(order) for rank, index in enumerate(order)}
        return [tercile[index] for index in range(len(similarity))]
    low, width = min(similarity), (max(similarity) - min(similarity)) / 3 or 1.0
    return [min(3, 1 + int((value - low) / width)) for value in similarity]
