"""Paired differences in {-1, 0, +1} by betting (Waudby-Smith & Ramdas 2024): the statistic G of verdict.md.

Like the evidence about a rate, G may be read after every whole round (see ``eprocess.py``): its bets have one
sign, so the product over a round has mean at most one when the mean difference over the prompts is at most
the null's.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp, xlog1py
from scipy.stats import beta

_BETS = 60
_U = (np.arange(1, _BETS + 1) - 0.5) / _BETS
_LOG_WEIGHTS = beta.logpdf(_U, 0.5, 0.5)
_LOG_WEIGHTS = _LOG_WEIGHTS - logsumexp(_LOG_WEIGHTS)
_BISECTIONS = 40


def log_evidence(plus: ArrayLike, minus: ArrayLike, zero: ArrayLike, mean: float) -> NDArray[np.float64]:
    """log G against "the mean difference is at most ``mean``", from counts (which broadcast) of +1, -1 and 0
    in whole rounds.

    G = sum_j w_j (1 + l_j (1 - mean))^plus (1 - l_j (1 + mean))^minus (1 - l_j mean)^zero with l_j = u_j / (1
    + mean), u_j = (j - 1/2)/60 and w_j proportional to the Beta(1/2, 1/2) density; G falls in ``mean``, which
    lies in (-1, 1).
    """
    if not -1 < mean < 1:
        raise ValueError(f"a mean difference of {mean} is outside (-1, 1)")
    bets = _U / (1 + mean)
    up, down, same = (np.asarray(count, float)[..., None] for count in (plus, minus, zero))
    parts = xlog1py(up, bets * (1 - mean)) + xlog1py(down, -bets * (1 + mean)) + xlog1py(same, -bets * mean)
    return np.asarray(logsumexp(_LOG_WEIGHTS + parts, axis=-1))


def lower_bound(plus: ArrayLike, minus: ArrayLike, zero: ArrayLike, alpha: float) -> float:
    """Lower confidence bound of the mean difference at one-sided level ``alpha`` (use alpha/2 for an
    interval). Of running counts at several looks the highest: G may be read at each."""
    low, high = -1.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        rejected = float(np.max(log_evidence(plus, minus, zero, middle))) >= -math.log(alpha)
        low, high = (middle, high) if rejected else (low, middle)
    return low


def interval(plus: int, minus: int, zero: int, alpha: float) -> tuple[float, float]:
    """Confidence interval of the mean difference at level 1 - ``alpha``."""
    return lower_bound(plus, minus, zero, alpha / 2), -lower_bound(minus, plus, zero, alpha / 2)
