"""How the checkpoints of a family lie on disk, and what they may say: all that admission asks of a family.

Nothing here loads torch: a checkpoint is judged by names, configurations and headers before a library sees
it. A family fills in the tables; the methods with a body are right where a family has nothing of the kind.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Protocol

from auditor._files.safetensors_header import Header

Shapes = Mapping[str, tuple[int, ...]]
"""Tensors by name, with their shapes."""
Configs = Mapping[str, Mapping[str, Any]]
"""The content of each part's ``config.json``, by part."""

SAVED = ("_class_name", "_diffusers_version", "_name_or_path", "_commit_hash")
"""What diffusers writes into every configuration and reads nothing from."""

EMA_KEYS = (
    "optimization_step",
    "decay",
    "inv_gamma",
    "min_decay",
    "power",
    "update_after_step",
    "use_ema_warmup",
)
"""What diffusers' average of a training leaves in a configuration; no number of the model."""


class Form(StrEnum):
    """How a checkpoint is stored."""

    FOLDER = "diffusers folder"
    SINGLE = "single file"
    UNET = "UNet over a base"
    LORA = "LoRA over a base"
    DELTA = "changed tensors over a base"


@dataclass(frozen=True)
class Piece:
    """Where a tensor lies in a file of other names: under which name, and which third of its first dimension
    (None: all of it)."""

    name: str
    third: int | None = None


@dataclass(frozen=True)
class Component:
    """A folder of a checkpoint: its name, the classes that ``model_index.json`` may say for it, and the keys
    of its configuration, an allow-list.

    A key that is not named could make a library run other code, load other files or draw in another way, so
    it is refused by its name.
    """

    name: str
    classes: tuple[str, ...]
    weights: str | None = None
    """How its files of weights are called, without the ending; None where it has none."""
    allowed: tuple[str, ...] = ()
    """The keys that may have any value. Of a scheduler every key is left unread but those of its noise
    schedule."""
    right: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """The keys that may have these values alone."""


@dataclass(frozen=True)
class Configurations:
    """What configurations may say, whatever component they are of."""

    pipelines: tuple[str, ...]
    """The pipelines that draw in the way that is audited; a checkpoint's names its family."""
    libraries: tuple[str, ...] = ("diffusers", "transformers")
    """The libraries that components may be of."""
    index_keys: tuple[str, ...] = ("_class_name", "_diffusers_version", "_name_or_path")
    """What ``model_index.json`` may say beside its components."""
    never_drawn_with: tuple[str, ...] = ()
    """Components that a pipeline may have and that change no image: they are never loaded."""
    blocks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The keys that list blocks, with those that may be listed."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why another value of a key is refused, where that can be said."""
    largest: Mapping[str, float] = field(default_factory=dict)
    """The largest number of a key."""
    longest: Mapping[str, int] = field(default_factory=dict)
    """The longest list of the keys that begin in this way."""
    unread: tuple[str, ...] = ()
    """Keys whose numbers say nothing of the model."""


@dataclass(frozen=True)
class Schedules:
    """What is read of a scheduler: the noise that a model was trained with. How images are drawn is the
    policy's."""

    schedulers: Mapping[str, Mapping[str, Any]]
    """The schedulers whose configuration is read, with what each takes where that says nothing. The first is
    taken for others."""
    keys: tuple[str, ...]
    """The keys that are read."""
    predictions: tuple[str, ...]
    """What a denoiser may have been trained to predict; the first where nothing is said."""
    fewest_timesteps: int = 1
    """Fewer are no noise schedule."""


@dataclass(frozen=True)
class AdapterNames:
    """What programs write before the name of a layer that an adapter changes."""

    prefixes: tuple[tuple[str, str | None], ...]
    """Before names with dots: the prefix, and the part that it says (None: any)."""
    flat: tuple[tuple[str, str | None], ...] = ()
    """Before names with underscores instead of dots."""
    marks: tuple[str, ...] = ()
    """Beginnings of names by which an adapter is known."""
    others: tuple[tuple[re.Pattern[str], str], ...] = ()
    """Names of adapters of other families, and what those are called."""


class Words(Protocol):
    """What a checkpoint's files say of how prompts are read."""

    @property
    def record(self) -> list[Any]:
        """How words are read, as JSON for a digest."""

    def tokenizers(self) -> dict[str, Any]:
        """The parts that read words, by name. Whatever a library makes of the files may be raised."""


class OnDisk(ABC):
    """The half of a family that admission asks."""

    name: ClassVar[str]
    """Lower case, digits and hyphens."""
    title: ClassVar[str]
    """How sentences call it."""
    denoiser: ClassVar[str]
    """The part that denoises: what most updates and erasers change."""
    text: ClassVar[tuple[str, ...]]
    """Parts that read prompts."""
    decoder: ClassVar[str]
    """The part that turns latents into images."""
    denoiser_title: ClassVar[str]
    """How sentences call the part that denoises."""
    components: ClassVar[tuple[Component, ...]]
    """The folders of a checkpoint, in the order in which they are judged."""
    configurations: ClassVar[Configurations]
    """What their configurations may say."""
    schedules: ClassVar[Schedules]
    """What is read of the scheduler's."""
    word_files: ClassVar[tuple[str, ...]]
    """The files that decide how prompts are read, by their names in the folder."""
    adapters: ClassVar[AdapterNames]
    """How adapters name what they change."""
    known_tensors: ClassVar[re.Pattern[str]]
    """What the names of tensors of the family begin with in a file that holds some of them."""
    whole_denoiser: ClassVar[Form] = Form.DELTA
    """What a file with every tensor of the denoiser is called."""
    single_file: ClassVar[Mapping[str, str]] = {}
    """What the names of each part's tensors begin with in a file with the whole model; empty where the family
    has no such file."""
    other_prefixes: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Of each part, what :meth:`other_names` may stand behind."""
    markers: ClassVar[tuple[str, ...]] = ()
    """Tensors without a place in any module, by which programs know how a model is to be drawn."""
    counters: ClassVar[tuple[str, ...]] = ()
    """Tensors that only count, and may be whole numbers."""

    @property
    def stems(self) -> dict[str, str]:
        """The components with weights, and how their files are called."""
        return {each.name: each.weights for each in self.components if each.weights is not None}

    @property
    def adapted(self) -> tuple[str, ...]:
        """The parts that adapters change."""
        return (self.denoiser, *self.text)

    # -- a folder --------------------------------------------------------------------------------------------

    @abstractmethod
    def build(self, component: str, config: Mapping[str, Any]) -> Any:
        """A component with this configuration and weights that mean nothing. Whatever the libraries make of
        the configuration may be raised."""

    @abstractmethod
    def read_words(self, source: str, read: Callable[[str], bytes | None]) -> Words:
        """How prompts are read, by what ``read`` gives of a file by its name in the folder (None: there is
        none).

        Raises :class:`~auditor.errors.RefusedError` where a file or a key is not understood.
        """

    @abstractmethod
    def refuse_what_cannot_draw(
        self, source: str, words: Words, configs: Configs, schedule: Mapping[str, Any]
    ) -> None:
        """Raise :class:`~auditor.errors.RefusedError` where ``words`` have no place in the parts that read
        them, or nothing can be drawn by the noise ``schedule``."""

    def refuse_index(self, source: str, index: Mapping[str, Any]) -> None:  # noqa: B027
        """Refuse by name a ``model_index.json`` of a pipeline that is known and not audited."""

    def refuse_configs(self, source: str, configs: Configs) -> None:  # noqa: B027
        """Refuse configurations that allow-lists cannot judge."""

    def refuse_denoiser(self, source: str, shapes: Shapes) -> None:  # noqa: B027
        """Refuse by name tensors of a denoiser that is known and not audited."""

    def plain_name(self, name: str) -> str:
        """A tensor's name as today's libraries give it, from one of today or of earlier versions."""
        return name

    def is_buffer(self, name: str) -> bool:
        """Is this tensor no weight, but numbers that older files hold?"""
        return False

    def is_unused(self, component: str, name: str, config: Mapping[str, Any]) -> bool:
        """Is this tensor of a component's file one that its library leaves out?"""
        return self.is_buffer(name)

    def version(self, configs: Configs) -> str | None:
        """How people call this kind of model, by its parts' configurations; None where they do not say."""
        return self.title

    def version_of_file(self, shapes: Shapes) -> str | None:
        """The same of one file, by its tensors."""
        return None

    def native_size(self, configs: Configs) -> int | None:
        """Pixels a side of the images that it was trained to draw, by its parts' configurations; None where
        they do not say."""
        return None

    # -- a file over a base ----------------------------------------------------------------------------------

    def form_of(self, names: Iterable[str]) -> Form | None:
        """What a file that is no adapter seems to hold, by the names of its tensors; None where it is nothing
        of this family."""
        return Form.DELTA if any(self.known_tensors.match(name) for name in names) else None

    def other_names(self, part: str, names: Iterable[str]) -> Mapping[str, str]:
        """What other programs call the tensors ``names`` of a part, less :attr:`other_prefixes`."""
        return {}

    def pieces(self, part: str, own: Iterable[str], names: Iterable[str]) -> Mapping[str, Piece]:
        """Where the tensors ``own`` of a part lie in a single file with the tensors ``names``."""
        return {name: Piece(self.single_file[part] + name) for name in own}

    def is_idle(self, name: str, declared: Mapping[str, Shapes], left: set[str]) -> bool:
        """Is a tensor of a single file one that no program draws with? ``left`` are those that no part
        has."""
        return False

    def said_prediction(self, source: str, header: Header) -> str | None:
        """What a file's marker tensors and metadata say that the denoiser predicts; None where they say
        nothing.

        Raises :class:`~auditor.errors.RefusedError` where they contradict one another.
        """
        return None

    def refuse_other_noise(  # noqa: B027
        self, source: str, header: Header, schedule: Mapping[str, Any], where: str
    ) -> None:
        """Refuse a file that says it is of another noise schedule than ``schedule``, which lies in
        ``where``."""
