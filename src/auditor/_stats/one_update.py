"""What the reading of one update will do, before any image is drawn: exact dynamic programming over (round,
count) for the rules of :mod:`auditor._audit.evidence.updates`.

Chances are exact where all prompts have the same rate. A look is taken after every round; a run draws whole
batches, so it may draw up to a batch more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from auditor._stats import paired
from auditor._stats.eprocess import Prior, log_evidence_above, log_evidence_below

Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]
Look = Callable[[Counts, int], tuple[Flags, Flags, Flags]]
"""(counts 0 to n, n images) -> where the test has shown what it is for, where it has shown the opposite, and
where neither can be reached any more."""


@dataclass(frozen=True)
class Read:
    """Chances of a test's ends, and the mean number of images."""

    shown: float
    against: float
    images: float

    @property
    def undecided(self) -> float:
        """The chance of neither."""
        return max(0.0, 1 - self.shown - self.against)


@dataclass(frozen=True)
class UpdateOutlook:
    """What one update of a population with one erased concept is read as, and what that costs."""

    clean: float
    """The chance that it is read clean."""
    back: float
    """The chance that it is proven to bring the concept back."""
    images: float
    """Mean number of images of the erased concept."""
    retained: float
    """Mean number of images of what is kept. The base's partners, as many, are in no count."""


@dataclass(frozen=True)
class UpdateDesign:
    """How one update is read: ``size`` images a round and ``images`` at most of the erased concept,
    ``retained_size`` and ``retained`` of what is kept.

    Held below ``tau_pass``, alive where a loss of ``max_drop`` is rejected, back above ``tau_fail`` where
    false positives are shown to be below ``max_false_positive``: each at ``alpha_in``. At least ``first``
    images of the concept are drawn in any case.
    """

    size: int
    images: int
    retained_size: int
    retained: int
    tau_pass: float
    tau_fail: float
    max_drop: float
    max_false_positive: float
    alpha_in: float
    prior: Prior
    first: int = 10

    def gate(self, rate: float) -> Read:
        """Of the erased concept, seen at ``rate``: ``shown`` is held, ``against`` is failed."""
        last = self.images // self.size * self.size
        enough, middle = -math.log(self.alpha_in), (self.tau_pass + self.tau_fail) / 2

        def look(hits: Counts, n: int) -> tuple[Flags, Flags, Flags]:
            # at best none of the coming images is a hit, or each is: the evidence rises in both
            holds = log_evidence_below(hits, last, self.tau_pass, self.prior) >= enough
            fails = log_evidence_above(hits + last - n, last, self.tau_fail, self.prior) >= enough
            return (
                log_evidence_below(hits, n, self.tau_pass, self.prior) >= enough,
                log_evidence_above(hits, n, self.tau_fail, self.prior) >= enough,
                ~np.where(hits <= middle * n, holds, fails),
            )

        return _walk(rate, self.size, self.images, look, min(self.first, last))

    def alive(self, loss: float) -> Read:
        """Of what is kept, where the update loses ``loss`` of what the base shows and gains nothing."""
        last = self.retained // self.retained_size * self.retained_size
        enough = -math.log(self.alpha_in)

        def look(lost: Counts, n: int) -> tuple[Flags, Flags, Flags]:
            shown = paired.log_evidence(0, lost, n - lost, -self.max_drop) >= enough
            in_reach = paired.log_evidence(0, lost, last - lost, -self.max_drop) >= enough
            return shown, np.zeros_like(shown), ~in_reach

        return _walk(loss, self.retained_size, self.retained, look)

    def negative(self, false: float) -> Read:
        """Of what is kept, where the detector takes ``false`` of it for the erased concept."""
        last = self.retained // self.retained_size * self.retained_size
        enough = -math.log(self.alpha_in)

        def look(hits: Counts, n: int) -> tuple[Flags, Flags, Flags]:
            shown = log_evidence_below(hits, n, self.max_false_positive, self.prior) >= enough
            in_reach = log_evidence_below(hits, last, self.max_false_positive, self.prior) >= enough
            return shown, np.zeros_like(shown), ~in_reach

        return _walk(false, self.retained_size, self.retained, look)

    def outlook(self, rate: float, loss: float = 0.0, false: float = 0.0) -> UpdateOutlook:
        """At these true rates, of an update that took. What is kept is drawn after the concept is read, and
        only for the control that is asked for then."""
        gate, alive, negative = self.gate(rate), self.alive(loss), self.negative(false)
        return UpdateOutlook(
            gate.shown * alive.shown,
            gate.against * negative.shown,
            gate.images,
            gate.shown * alive.images + gate.against * negative.images,
        )


def _walk(chance: float, size: int, most: int, look: Look, first: int = 0) -> Read:
    """Follow a count, to which each of ``size`` images a round adds 1 with ``chance``, until a look ends it;
    not before ``first`` images."""
    step = binom.pmf(np.arange(size + 1), size, chance)
    mass, images, ends = np.array([1.0]), 0.0, [0.0, 0.0]
    for n in range(size, most + 1, size):
        images += size * (1.0 if n - size < first else float(mass.sum()))
        mass = np.convolve(mass, step)
        shown, against, closed = look(np.arange(n + 1), n)
        ends[0] += float(mass[shown].sum())
        ends[1] += float(mass[against & ~shown].sum())
        mass = np.where(shown | against | (closed & (n >= first)), 0.0, mass)
    return Read(ends[0], ends[1], images)
