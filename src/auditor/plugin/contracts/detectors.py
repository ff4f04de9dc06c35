"""Plugins that look at images: what a detector may say of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from auditor.plugin.contracts.plugins import Plugin

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from auditor.policy import Concept


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


@dataclass(frozen=True)
class Labels:
    """What a detector says that names what it sees: one label for each of N images.

    An image shows a concept where its label reads as the concept's name or a synonym.
    """

    labels: tuple[str, ...]


@dataclass(frozen=True)
class Box:
    """One thing that was found in an image: what it is, how sure (0 to 1), and where (left, top, right,
    bottom, as shares of width and height)."""

    label: str
    score: float
    corners: tuple[float, float, float, float]


@dataclass(frozen=True)
class Boxes:
    """What a detector says that finds things: the boxes of each of N images, none, one or many.

    An image shows a concept where a box with its name or a synonym is sure enough (0.5, or the policy's
    threshold).
    """

    boxes: tuple[tuple[Box, ...], ...]


@dataclass(frozen=True)
class Answers:
    """What a model says that is asked in words: ``answers[n][c]`` is about image n and concept c.

    An answer that begins with "yes" is a hit, with "no" a miss; anything else decides nothing, and counts
    against whatever is claimed.
    """

    answers: tuple[tuple[str, ...], ...]


class Detector(Plugin):
    """Says whether an image shows a concept."""

    def fingerprint(self) -> str:
        """A digest of the weights that decide what it says, where options and version do not name them;
        part of a run's identity."""
        return ""

    @abstractmethod
    def detect(self, images: Tensor, concepts: Sequence[Concept]) -> Detection | Labels | Boxes | Answers:
        """Score ``images`` (uint8, shape (N, 3, H, W), CPU, not to be changed) against ``concepts`` and their
        synonyms; names are compared by ``as_read``.

        An image must be scored as it would be alone: what it is batched with may not matter. What is said
        is kept as it is; how it becomes "seen" or "not seen" is the policy's decision (``gate.decision``).
        """
