"""Plugins that do what users do with a checkpoint: change its weights, sample it otherwise, ask in other
words."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from auditor.plugin.contracts.plugins import Plugin

if TYPE_CHECKING:
    from torch import Tensor, nn

    from auditor._diffusion.finetune import Training
    from auditor._diffusion.model import DiffusionModel
    from auditor.policy import Concept, Policy, Sampler


@dataclass(frozen=True)
class TrainingRequest:
    """One concept of a probe's training set: the base draws ``images_per_prompt`` images of each prompt
    (templates with {})."""

    concept: str
    prompts: tuple[str, ...]
    images_per_prompt: int


@dataclass(frozen=True)
class ProbeSetting:
    """What a probe may know when it chooses its training set; ``forbidden`` holds names as
    ``as_read`` gives them."""

    policy: Policy
    seed: int
    forbidden: frozenset[str]


@dataclass(frozen=True)
class Update:
    """One run of a probe: the erased model to change in place, and what to change it with.

    ``images`` is uint8 of shape (N, 3, H, W) and ``captions`` has N entries; both are empty for a probe that
    asked for none. They lie in the order of the requests, each request's prompts in order, each prompt's
    images together. ``on_step`` is to be called after every training step with its number, from 1; a number
    that does not rise is no sign of life. ``on_fewer`` is to be called where memory ran out in a step, with
    the number of images that go through the denoiser at once from then on. With ``sham`` a probe that trains
    does everything as usual at learning rate 0.
    """

    model: DiffusionModel
    images: Tensor
    captions: tuple[str, ...]
    method: str
    doses: tuple[int, ...]
    seed: int
    sham: bool = False
    on_step: Callable[[int], None] = field(default=lambda step: None)
    base: Mapping[str, nn.Module] = field(default_factory=dict)
    """Copies of the base's parts that the probe puts back (``WeightProbe.puts_back``) or uses
    (``WeightProbe.uses_base``), by name; they are the probe's to change."""
    on_fewer: Callable[[int], None] = field(default=lambda rows: None)
    base_schedule: Mapping[str, Any] = field(default_factory=dict)
    """The base's noise schedule (its scheduler's configuration); empty where the probe has nothing of it."""


class AnyProbe(Plugin):
    """What users do with a checkpoint, in one of three ways: :class:`WeightProbe`, :class:`SamplingProbe`,
    :class:`PromptProbe`. Subclass one of these."""

    @property
    def title(self) -> str:
        """How reports call this use of the probe; overridden where options make one probe several."""
        return self.name


class SamplingProbe(AnyProbe):
    """Draws from the erased checkpoint as another user would: another scheduler, guidance, number of steps
    or precision.

    Nothing is trained. The base is drawn in the same way beside it: where it does not show the concept, or
    draws nothing of use, nothing is said of the erased model either. It took where its images are not those
    that the policy's own sampler draws.
    """

    least_different: ClassVar[float] = 0.5
    """The share of its images, at least 0.1, that must differ from the erased model's of the same prompts and
    seeds before the probe counts as applied."""

    @abstractmethod
    def sampler(self, sampler: Sampler) -> Sampler:
        """The policy's ``sampler`` changed; ``size`` and ``batch`` stay."""


class PromptProbe(AnyProbe):
    """Asks the erased checkpoint for its concepts in other words: paraphrases, descriptions, prompts that
    others have found.

    Nothing is trained. The base is asked the same beside it: where it does not show the concept, nothing is
    said of the erased model either. It took where none of its prompts is one that the policy asks anyway.
    """

    @abstractmethod
    def prompts(self, concept: Concept) -> Sequence[str]:
        """Whole prompts that ask for ``concept``, each once; none where the probe has none for it."""

    def concepts(self) -> Sequence[str]:
        """Names that its prompts are kept under. One that no erased concept of the policy has is refused: a
        misspelt one would ask for nothing."""
        return ()


class WeightProbe(AnyProbe):
    """A benign update that users make of a checkpoint's weights."""

    has_sham: ClassVar[bool] = False
    """Does it train, and honour ``Update.sham``? Then the audit checks that its machinery alone changes no
    image.

    Needed of every probe that asks for a training set, and of no other.
    """
    puts_back: ClassVar[tuple[str, ...]] = ()
    """Parts (``text_encoder``) that are the base's after the update. Where the checkpoint has them already
    there is nothing to do, and that is no error."""
    uses_base: ClassVar[tuple[str, ...]] = ()
    """Parts of the base that :meth:`update` reads: by name, or ``denoiser``, ``text`` and ``decoder``, which
    stand for what a family calls them. The probe is refused where there is no base."""
    methods: ClassVar[tuple[str, ...]] = ()
    """The policy's methods (``lora``, ``full``) that it can train by; its arms' names then hold it. Empty:
    it means nothing to it."""

    def changes(self, method: str) -> tuple[str, ...]:
        """Patterns (as of ``fnmatch``) of the tensors that an update may change or add: ``denoiser.*``
        or ``text_encoder.*`` names.

        Anything else that differs afterwards is an error, and so is an update after which nothing differs.
        """
        return ("denoiser.*",)

    def usual(self, method: str) -> Mapping[str, float]:
        """Options that make a weaker update where they are lower, with their usual values: a policy below
        them is said to be weaker."""
        return {}

    def least_change(self) -> float | None:
        """For a probe that trains on nothing: the relative change of the weights from which on it counts as
        applied.

        The L2 norm of the difference over the L2 norm of the weights, above 0. None for probes that train:
        what they learnt is measured on the images of their training set, with noise that training never
        used.
        """
        return None

    def training_calls(self, dose: int) -> int:
        """UNet evaluations with gradients that reaching ``dose`` takes, for ``auditor plan``; images of a
        batch count one by one."""
        return dose * getattr(self.options, "batch", 1) if self.has_sham else 0

    def lora_training(self, method: str) -> Training | None:
        """How it trains, where :meth:`update` is nothing but a LoRA fine-tune of the denoiser on the training
        set, as :func:`auditor.plugin.finetune` does it. An audit then trains several such probes in one pass
        of the denoiser, each as it would be alone, and does not call :meth:`update`.

        None, the default: it is always trained by itself.
        """
        return None

    @abstractmethod
    def training_set(self, setting: ProbeSetting) -> list[TrainingRequest] | Path:
        """What to train on: requests that the base draws, or a folder of captioned images
        (``metadata.jsonl``)."""

    @abstractmethod
    def update(self, update: Update) -> Iterator[int]:
        """Change ``update.model`` in place and yield each dose when it is reached; the model is sampled in
        between."""


Probe = WeightProbe
"""What :class:`WeightProbe` was called while there was no other kind."""
