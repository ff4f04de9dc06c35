"""Plugins that make an erased checkpoint, and those that say where in an image a concept is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from auditor.plugin.contracts.plugins import Plugin

if TYPE_CHECKING:
    from torch import Tensor

    from auditor._diffusion.model import DiffusionModel
    from auditor.policy import Concept


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
