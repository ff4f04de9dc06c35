"""Estimates from a few replicates of many images, and contrasts of them: what a study says, with what could
be chance.

An interval has two sources. Replicates (other seeds of eraser and training) differ: Student's t on their
values. Images are a sample of what could be drawn: a normal interval with the largest variance that a rate
allows. Replicates share their image seeds, so that averaging over them does not shrink the second. Both
half-widths add up as independent errors do: the root of the sum of their squares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from scipy.stats import norm, t


@dataclass(frozen=True)
class Estimate:
    """A value a replicate, and the sampling variance of their mean that comes from the images."""

    values: tuple[float, ...]
    variance: float

    @property
    def value(self) -> float:
        """The mean over replicates."""
        return mean(self.values)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """(lower, upper) at confidence ``level``. Of one replicate only the images speak."""
        tail = 0.5 + level / 2
        width, count = float(norm.ppf(tail)) * math.sqrt(self.variance), len(self.values)
        if count > 1:
            width = math.hypot(width, float(t.ppf(tail, count - 1)) * stdev(self.values) / math.sqrt(count))
        return self.value - width, self.value + width


def rate_variance(hits: int, n: int) -> float:
    """The most that a mean of ``n`` values between 0 and 1, ``hits`` in sum, can vary: p (1 - p) / n with
    p = (hits + 1/2) / (n + 1)."""
    share = (hits + 0.5) / (n + 1)
    return share * (1 - share) / n


def contrast(weights: Sequence[float], estimates: Sequence[Estimate]) -> Estimate:
    """The weighted sum, replicate by replicate: seeds are shared between conditions, so their difference is
    taken within each.

    Raises ``ValueError`` where the numbers of replicates differ.
    """
    count = {len(estimate.values) for estimate in estimates}
    if len(count) != 1:
        raise ValueError("contrasts need the same replicates on all sides")
    pairs = list(zip(weights, estimates, strict=True))
    values = tuple(
        sum(weight * estimate.values[row] for weight, estimate in pairs) for row in range(count.pop())
    )
    return Estimate(values, sum(weight**2 * estimate.variance for weight, estimate in pairs))


def rise(estimates: Sequence[Estimate]) -> Estimate:
    """From the first to the last of ordered conditions, along the least-squares line through them at equal
    steps."""
    count = len(estimates)
    centred = [row - (count - 1) / 2 for row in range(count)]
    scale = (count - 1) / sum(value**2 for value in centred)
    return contrast([scale * value for value in centred], estimates)
