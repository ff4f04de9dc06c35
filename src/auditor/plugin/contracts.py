"""The classes that plugin authors subclass: metadata, an ``Options`` model, one or two methods each.

This API is number 1 (:data:`auditor.plugin.API_VERSION`). Within a number it only gains: fields and arguments
with defaults.

Every method is called through one door (:mod:`auditor.plugin._door`): what it raises becomes an error with
the plugin's name and version, its standard output goes to standard error, and the global random generators
(random, numpy, torch) are seeded for it and put back afterwards. A method that is silent for longer than the
policy's ``budget.plugin_minutes`` ends the process with 5.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from auditor.plugin.options import OptionsModel as OptionsModel

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from auditor._diffusion.model import DiffusionModel
    from auditor.policy import Concept, Policy
    from auditor.report import Report


class Plugin(ABC):
    """What every plugin says of itself."""

    name: ClassVar[str]
    """The name that policies use: lower case, digits and hyphens, unique among plugins of its kind."""
    summary: ClassVar[str]
    """One line on what it is for."""
    source: ClassVar[str] = ""
    """Paper, equation or DOI."""
    needs_gpu: ClassVar[bool] = False
    """Is it of no practical use on a CPU?"""

    Options: ClassVar[type[OptionsModel]] = OptionsModel
    """The model of its options."""
    origin: ClassVar[str] = ""
    """Distribution and version that it came from; the loader fills it in."""
    given: Mapping[str, Any] | None = None
    """Its options as they were written; the loader fills it in."""
    given_in: Path | None = None
    """The folder that their relative paths lead from, None: the working folder; the loader fills it in."""

    def __init__(self, options: OptionsModel) -> None:
        self.options: Any = options

    def parts(self) -> tuple[Plugin, ...]:
        """Other plugins that this one is made of; their versions and weights are part of the run's
        identity too."""
        return ()

    def files(self) -> tuple[Path, ...]:
        """Files and folders whose content decides what it does; part of the identity of what a study
        measures.

        Every path among the options. Overridden by plugins that are told of a file by a string, or of a
        folder to write to.
        """
        return tuple(value for _, value in self.options if isinstance(value, Path))


@dataclass(frozen=True)
class Detection:
    """What a detector says of N images about C concepts.

    ``hits`` (bool) and ``scores`` (float, 0 to 1) have shape (N, C), in the order the concepts were given;
    ``labels`` is the detector's first choice for each image, for people to read. ``found`` (bool, shape (N,
    C)) says where there was anything to judge, a face for example: reports then give the rate over those
    images too. The gate always counts all images.
    """

    hits: np.ndarray
    scores: np.ndarray
    labels: tuple[str, ...]
    found: np.ndarray | None = None


class Detector(Plugin):
    """Says whether an image shows a concept."""

    def fingerprint(self) -> str:
        """A digest of the weights that decide what it says, where options and version do not name them;
        part of a run's identity."""
        return ""

    @abstractmethod
    def detect(self, images: Tensor, concepts: Sequence[Concept]) -> Detection:
        """Score ``images`` (uint8, shape (N, 3, H, W), CPU, not to be changed) against ``concepts`` and their
        synonyms; names are compared by ``as_read``.

        An image must be scored as it would be alone: what it is batched with may not matter.
        """


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
    that does not rise is no sign of life. With ``sham`` a probe that trains does everything as usual at
    learning rate 0.
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
    """Copies of the base's parts that the probe puts back (``Probe.puts_back``), by name."""


class Probe(Plugin):
    """A benign update that users make of a checkpoint."""

    has_sham: ClassVar[bool] = False
    """Does it train, and honour ``Update.sham``? Then the audit checks that its machinery alone changes no
    image.

    Needed of every probe that asks for a training set, and of no other.
    """
    puts_back: ClassVar[tuple[str, ...]] = ()
    """Parts (``text_encoder``) that are the base's after the update. Where the checkpoint has them already
    there is nothing to do, and that is no error."""
    methods: ClassVar[tuple[str, ...]] = ()
    """The policy's methods (``lora``, ``full``) that it can train by; its arms' names then hold it. Empty:
    it means nothing to it."""

    @property
    def title(self) -> str:
        """How reports call this use of the probe; overridden where options make one probe several."""
        return self.name

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
        what they learnt is measured on held-out images of their training set.
        """
        return None

    def training_calls(self, dose: int) -> int:
        """UNet evaluations with gradients that reaching ``dose`` takes, for ``auditor plan``; images of a
        batch count one by one."""
        return dose * getattr(self.options, "batch", 1) if self.has_sham else 0

    @abstractmethod
    def training_set(self, setting: ProbeSetting) -> list[TrainingRequest] | Path:
        """What to train on: requests that the base draws, or a folder of captioned images
        (``metadata.jsonl``)."""

    @abstractmethod
    def update(self, update: Update) -> Iterator[int]:
        """Change ``update.model`` in place and yield each dose when it is reached; the model is sampled in
        between."""


@dataclass(frozen=True)
class Erasure:
    """One run of an eraser: the base model to change in place, the concepts to erase and those to keep.

    ``folder`` is for what should stay beside the erased checkpoint; after an interruption the same erasure
    finds there what it had written. ``reuse`` is the folder of an earlier erasure, to take parts from, or
    None.
    """

    model: DiffusionModel
    concepts: tuple[Concept, ...]
    retain: tuple[Concept, ...]
    seed: int
    on_step: Callable[[str, int, int], None] = field(default=lambda stage, step, steps: None)
    folder: Path | None = None
    reuse: Path | None = None


class Eraser(Plugin):
    """Makes an erased checkpoint out of a base."""

    reuses: ClassVar[bool] = False
    """Can it take parts from an earlier result (``Erasure.reuse``)?"""

    def changes(self) -> tuple[str, ...]:
        """Patterns (as of ``fnmatch``) of the tensors that an erasure may change: ``denoiser.*`` or
        ``text_encoder.*`` names.

        Anything else that differs afterwards is an error, and nothing is written.
        """
        return ("denoiser.*",)

    def mapped_to(self, concept: Concept) -> str:
        """What ``concept`` is turned into, in words; empty where it is turned into nothing in particular."""
        return concept.mapping or ""

    def plan(self, erasure: Erasure) -> dict[str, Any]:
        """What :meth:`erase` would do, without doing it (JSON); raises :class:`~auditor.errors.UsageError`
        for what it cannot do.

        Always called before :meth:`erase`: what can be known to be wrong is said here, before anything is
        written.
        """
        return {}

    @abstractmethod
    def erase(self, erasure: Erasure) -> dict[str, Any]:
        """Change ``erasure.model`` in place, within :meth:`changes`; return what to record of it (JSON:
        condition numbers, losses, seconds)."""


@dataclass(frozen=True)
class MaskRequest:
    """N training images of one concept to be masked.

    ``images`` is uint8 of shape (N, 3, H, W). ``attention`` (float, shape (N, h, w), h x w being the latents'
    size) is the cross-attention that the phrase's tokens drew: averaged over heads, scaled to h x w, summed
    over layers and steps. ``names`` has the images' names ("00", "01", ...), by which files can be matched
    with them.
    """

    concept: Concept
    images: Tensor
    attention: Tensor
    names: tuple[str, ...] = ()


class MaskSource(Plugin):
    """Says where in an image a concept is, for erasers that train inside a mask only."""

    def check(self, concept: Concept, names: Sequence[str]) -> None:
        """Raise :class:`~auditor.errors.UsageError` where masks for ``concept``'s images (``names``)
        cannot be made; none is drawn yet."""

    def fingerprint(self, concept: Concept) -> str:
        """A digest of what decides where ``concept`` is, where options and version do not name it: files,
        for example."""
        return ""

    @abstractmethod
    def masks(self, request: MaskRequest) -> Tensor:
        """Masks in {0, 1}, float, of the shape of ``request.attention``; no mask may be empty."""


@dataclass(frozen=True)
class ImageOutcome:
    """What the first detector said of one image: is it there, where it was asked for?

    ``role``: ``erased`` (a prompt with an erased concept's name), ``synonym`` (with another name of it) or
    ``retained``.
    """

    role: str
    concept: str
    hit: bool


class Metric(Plugin):
    """A number about the images of an arm; information, never part of a verdict."""

    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True
    is_share: ClassVar[bool] = False
    """Is it a share of images, or a mean of shares? Its interval then lies within 0 and 1, and is never
    narrower than that of a count."""
    resamples: ClassVar[int] = 1000
    """Of the bootstrap; fewer where :meth:`value` is slow."""
    uses_outcomes: ClassVar[bool] = False
    """Is it about what the detector saw, and not about pixels? Then :meth:`features` is called with a
    third argument, ``outcomes`` (one :class:`ImageOutcome` an image), and with all images of concepts;
    such a metric is measured by studies, not by audits."""

    @abstractmethod
    def features(
        self, images: Tensor, prompts: Sequence[str], outcomes: Sequence[ImageOutcome] | None = None
    ) -> np.ndarray:
        """What the number is computed from: float, shape (N, D), a row an image; ``images`` is uint8 of shape
        (N, 3, H, W).

        ``outcomes`` may be left out of the signature by metrics that do not use them.
        """

    @abstractmethod
    def value(self, features: np.ndarray, reference: np.ndarray) -> float:
        """The number, from an arm's ``features`` and those of the base's images of the same prompts and
        seeds.

        Called again on resampled rows for the interval, so it must be quick and without a state.
        """


class Reporter(Plugin):
    """Shows a report in another form: a pure function of the report and of the images it names."""

    filename: ClassVar[str]
    """The file that the form is written to, in the run's folder; a bare name."""

    @abstractmethod
    def render(self, report: Report, folder: Path) -> bytes:
        """The file's content, the same bytes for the same report; ``folder`` holds the images that the
        report names."""
