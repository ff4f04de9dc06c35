"""The base class of probes that fine-tune the denoiser on images of chosen concepts."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from auditor.errors import UsageError
from auditor.plugin.contracts import OptionsModel, ProbeSetting, TrainingRequest, Update, WeightProbe
from auditor.policy import as_read
from auditor.policy.concepts.sets import ConceptNames, PromptTemplates

if TYPE_CHECKING:
    from auditor._diffusion.finetune import Training
    from auditor._diffusion.model import DiffusionModel

_RATES = {"lora": 1e-4, "full": 1e-5}


class FineTuneOptions(OptionsModel):
    """What to train on and how. Defaults are those of diffusers' text-to-image examples at Stable
    Diffusion's size."""

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
    """Default: on GPUs of 24 GB or less."""


class FineTune(WeightProbe):
    """Fine-tuning of the denoiser on images that the base draws of chosen concepts."""

    has_sham = True
    methods: ClassVar[tuple[str, ...]] = ("lora", "full")
    Options: ClassVar[type[OptionsModel]] = FineTuneOptions

    @abstractmethod
    def choose(self, candidates: list[str], setting: ProbeSetting) -> list[str]:
        """``names`` of ``candidates`` (sorted, none of them erased or retained); :meth:`sample` takes some at
        random."""

    def changes(self, method: str) -> tuple[str, ...]:
        """LoRA adds its matrices and leaves every weight; full fine-tuning may change the whole
        denoiser."""
        return ("denoiser.*.lora_*",) if method == "lora" else ("denoiser.*",)

    def usual(self, method: str) -> dict[str, float]:
        """The learning rate of diffusers' examples."""
        return {"learning_rate": _RATES[method]}

    def training_set(self, setting: ProbeSetting) -> list[TrainingRequest] | Path:
        """Requests for the chosen concepts, or the user's own folder."""
        options: FineTuneOptions = self.options
        if options.folder is not None:
            return options.folder
        if not options.candidates:
            raise UsageError(
                f"The probe {self.title} has nothing to train on: give 'candidates' or 'folder' in its "
                "options."
            )
        named = {as_read(name): name for name in sorted(options.candidates, reverse=True)}
        candidates = sorted(name for read, name in named.items() if read not in setting.forbidden)
        return [
            TrainingRequest(name, options.prompts, options.images_per_prompt)
            for name in self.choose(candidates, setting)
        ]

    def training(self, method: str) -> Training:
        """How it trains by ``method``."""
        from auditor._diffusion.finetune import Training

        options: FineTuneOptions = self.options
        return Training(
            method,
            options.learning_rate or _RATES[method],
            options.batch,
            options.rank,
            eight_bit=options.eight_bit,
            checkpointing=options.gradient_checkpointing,
        )

    def lora_training(self, method: str) -> Training | None:
        """How it trains, unless it trains all weights, or a subclass has an :meth:`update` of its own."""
        own = type(self).update is not FineTune.update
        return None if own or method != "lora" or self.options.eight_bit else self.training(method)

    def update(self, update: Update) -> Iterator[int]:
        """Train, and yield at every dose."""
        yield from self.train(update.model, update)

    def train(self, model: DiffusionModel, update: Update) -> Generator[int, None, None]:
        """Train ``model``'s denoiser as ``update`` asks it of its own model, and yield at every dose."""
        from auditor._diffusion.finetune import Examples, finetune

        training = self.training(update.method)
        if update.sham:
            training = replace(training, learning_rate=0.0)
        examples = Examples.of(model, update.images, update.captions)
        yield from finetune(
            model, examples, training, update.doses, update.seed, update.on_step, update.on_fewer
        )

    def sample(self, candidates: list[str], setting: ProbeSetting) -> list[str]:
        """``names`` of ``candidates`` at random, the same for the same seed; :class:`UsageError` where
        there are fewer."""
        if len(candidates) < self.options.names:
            raise UsageError(
                f"The probe {self.title} needs {self.options.names} concepts and has {len(candidates)} after "
                "erased and retained ones are taken out; add candidates or lower 'names'."
            )
        # reproducible on purpose
        return random.Random(setting.seed).sample(candidates, self.options.names)  # noqa: S311
