"""Plugins that no verdict rests on: metrics of images, and forms of a report."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from auditor.plugin.contracts.plugins import Plugin

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from auditor.report import Report


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
