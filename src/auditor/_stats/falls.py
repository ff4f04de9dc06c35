"""How far losses fell from before to after, pair by pair: a paired t-test of the mean fall."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as distributions


@dataclass(frozen=True)
class Fall:
    """How far a loss fell, as a share of what it was: the mean and its one-sided lower bound."""

    mean: float
    lower: float

    @property
    def said(self) -> str:
        """In words."""
        return f"{'rose' if self.mean < 0 else 'fell'} by {abs(self.mean):.1%}"

    def reaches(self, least: float) -> bool:
        """Did it fall by ``least`` on average, and is a fall shown?"""
        return self.mean >= least and self.lower > 0


def fall_of(before: Sequence[float], after: Sequence[float], alpha: float) -> Fall | None:
    """Paired t-test at one-sided level ``alpha``; None where there are not two pairs, or not as many before
    as after, or one is no number."""
    measured = len(after) >= 2 and len(after) == len(before) and all(map(math.isfinite, (*before, *after)))
    if not measured or sum(before) <= 0:
        return None
    earlier = np.array(before)
    fall = (earlier - np.array(after)) / earlier.mean()
    error = fall.std(ddof=1) / math.sqrt(len(fall))
    return Fall(
        float(fall.mean()),
        float(fall.mean() - distributions.t.ppf(1 - alpha, len(fall) - 1) * error),
    )
