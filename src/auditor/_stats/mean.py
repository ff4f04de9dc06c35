"""Bounds of the mean of values in [0, 1] that may be read after any of them, by betting (Waudby-Smith &
Ramdas 2024): the statistic of :mod:`~auditor._stats.paired` for numbers instead of signs.

The values need no common distribution: it is enough that each, given those before it, has the mean that is
asked about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import beta

_BETS = 60
_U = (np.arange(1, _BETS + 1) - 0.5) / _BETS
_LOG_WEIGHTS = beta.logpdf(_U, 0.5, 0.5)
_LOG_WEIGHTS = _LOG_WEIGHTS - logsumexp(_LOG_WEIGHTS)
_BISECTIONS = 30


def log_evidence_above(values: Sequence[float], mean: float) -> NDArray[np.float64]:
    """log of the evidence, after each of ``values`` (N in [0, 1]), that their mean is above ``mean`` (in
    (0, 1)): sum_j w_j prod_i (1 + u_j (x_i - mean) / mean), u_j = (j - 1/2)/60, w_j proportional to the
    Beta(1/2, 1/2) density."""
    if not 0 < mean < 1:
        raise ValueError(f"a mean of {mean} is outside (0, 1)")
    x = np.asarray(values, float)[:, None]
    gains = np.cumsum(np.log1p(_U * (x - mean) / mean), axis=0)
    return np.asarray(logsumexp(_LOG_WEIGHTS + gains, axis=1))


def lower_bound(values: Sequence[float], alpha: float) -> float:
    """Lower confidence bound of the mean at 1 - ``alpha``, valid whenever sampling stopped; 0 of no value."""
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS if len(values) else 0):
        middle = (low + high) / 2
        rejected = float(log_evidence_above(values, middle).max()) >= -math.log(alpha)
        low, high = (middle, high) if rejected else (low, middle)
    return low


def upper_bound(values: Sequence[float], alpha: float) -> float:
    """Upper confidence bound of the mean at 1 - ``alpha``, likewise; 1 of no value."""
    return 1 - lower_bound([1 - value for value in values], alpha)
