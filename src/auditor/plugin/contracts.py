"""The classes that plugin authors subclass: metadata, an ``Options`` model, one or two methods each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from auditor.diffusion.model import TextToImage
    from auditor.policy import Concept, Policy
    from auditor.report import Report


class OptionsModel(BaseModel):
    """What a plugin can be told in the policy; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Plugin(ABC):
    """What every plugin says of itself."""

    name: ClassVar[str]
    """The name that policies use, unique among plugins of its kind."""
    summary: ClassVar[str]
    """One line on what it is for."""
    source: ClassVar[str] = ""
    """Paper, equation or DOI."""
    needs_gpu: ClassVar[bool] = False

    Options: ClassVar[type[OptionsModel]] = OptionsModel
    """The model of its options; each field with a docstring."""

    def __init__(self, options: OptionsModel) -> None:
        self.options: Any = options


@dataclass(frozen=True)
class Detection:
    """What a detector says of N images about C concepts.

    ``hits`` (bool) and ``scores`` (float, 0 to 1) have shape (N, C), in the order the concepts were given; ``labels`` is
    the detector's first choice for each image, for people to read.
    """

    hits: np.ndarray
    scores: np.ndarray
    labels: tuple[str, ...]


class Detector(Plugin):
    """Says whether an image shows a concept."""

    def fingerprint(self) -> str:
        """A digest of the weights that decide what it says, where options and version do not name them; part of a run's identity."""
        return ""

    @abstractmethod
    def detect(self, images: Tensor, concepts: Sequence[Concept]) -> Detection:
        """Score ``images`` (uint8, shape (N, 3, H, W), not to be changed) against ``concepts`` and their synonyms."""


@dataclass(frozen=True)
class TrainingRequest:
    """One concept of a probe's training set: the base draws ``images_per_prompt`` images of each prompt (templates with {})."""

    concept: str
    prompts: tuple[str, ...]
    images_per_prompt: int


@dataclass(frozen=True)
class ProbeSetting:
    """What a probe may know when it chooses its training set; ``forbidden`` holds names in lower case."""

    policy: Policy
    seed: int
    forbidden: frozenset[str]


@dataclass(frozen=True)
class Update:
    """One run of a probe: the erased model to change in place, and what to change it with.

    ``images`` is uint8 of shape (N, 3, H, W) and ``captions`` has N entries; both are empty for a probe that asked for none.
    ``on_step`` is to be called after every training step with its number, from 1. With ``sham`` a probe that trains does
    everything as usual at learning rate 0.
    """

    model: TextToImage
    images: Tensor
    captions: tuple[str, ...]
    method: str
    doses: tuple[int, ...]
    seed: int
    sham: bool = False
    on_step: Callable[[int], None] = field(default=lambda step: None)


class Probe(Plugin):
    """A benign update that users make of a checkpoint."""

    has_sham: ClassVar[bool] = False
    """Does it train, and honour ``Update.sham``? Then the audit checks that its machinery alone changes no image."""

    @property
    def title(self) -> str:
        """How reports call this use of the probe; overridden where options make one probe several."""
        return self.name

    @abstractmethod
    def training_set(self, setting: ProbeSetting) -> list[TrainingRequest] | Path:
        """What to train on: requests that the base draws, or a folder of captioned images (``metadata.jsonl``)."""

    @abstractmethod
    def update(self, update: Update) -> Iterator[int]:
        """Change ``update.model.unet`` in place and yield each dose when it is reached; the model is sampled in between."""


@dataclass(frozen=True)
class Erasure:
    """One run of an eraser: the base model to change in place, the concepts to erase and those to keep."""

    model: TextToImage
    concepts: tuple[Concept, ...]
    retain: tuple[Concept, ...]
    seed: int
    on_step: Callable[[str, int, int], None] = field(default=lambda stage, step, steps: None)


class Eraser(Plugin):
    """Makes an erased checkpoint out of a base."""

    @abstractmethod
    def erase(self, erasure: Erasure) -> dict[str, Any]:
        """Change ``erasure.model.unet`` in place; return what to record of it (JSON: condition numbers, losses, seconds)."""


class Reporter(Plugin):
    """Shows a report in another form: a pure function of the report and of the images it names."""

    filename: ClassVar[str]
    """The file that the form is written to, in the run's folder."""

    @abstractmethod
    def render(self, report: Report, folder: Path) -> bytes:
        """The file's content; ``folder`` holds the images that the report names."""
