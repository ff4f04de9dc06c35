"""Paired differences in {-1, 0, +1} by betting (Waudby-Smith & Ramdas 2024): the statistic G of verdict.md."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp, xlog1py
from scipy.stats import beta

_BETS = 60
_U = (np.arange(1, _BETS + 1) - 0.5) / _BETS
_LOG_WEIGHTS = beta.logpdf(_U, 0.5, 0.5)
_LOG_WEIGHTS = _LOG_WEIGHTS - logsumexp(_LOG_WEIGHTS)


def log_evidence(plus: int, minus: int, zero: int, mean: float) -> float:
    """log G against "the mean difference is at most ``mean``", from counts of +1, -1 and 0 in whole rounds.

    G = sum_j w_j (1 + l_j (1 - mean))^plus (1 - l_j (1 + mean))^minus (1 - l_j mean)^zero with l_j = u_j / (1 + mean),
    u_j = (j - 1/2)/60 and w_j proportional to the Beta(1/2, 1/2) density; G falls in ``mean``, which lies in (-1, 1).
    """
    if not -1 < mean < 1:
        raise ValueError(f"a mean difference of {mean} is outside (-1, 1)")
    bets = _U / (1 + mean)
    parts = xlog1py(plus, bets * (1 - mean)) + xlog1py(minus, -bets * (1 + mean)) + xlog1py(zero, -bets * mean)
    return float(logsumexp(_LOG_WEIGHTS + parts))


def p_drop_too_large(lost: int, gained: int, same: int, largest_drop: float) -> float:
    """p-value of non-inferiority: against "the mean drop (before minus after) is at least ``largest_drop``"."""
    return min(1.0, float(np.exp(-log_evidence(gained, lost, same, -largest_drop))))


def lower_bound(plus: int, minus: int, zero: int, alpha: float) -> float:
    """Lower confidence bound of the mean difference at one-sided level ``alpha`` (use alpha/2 for an interval)."""
    goal = -float(np.log(alpha))

    def excess(mean: float) -> float:
        return log_evidence(plus, minus, zero, mean) - goal

    low, high = -1 + 1e-9, 1 - 1e-9
    if excess(low) <= 0:
        return -1.0
    return 1.0 if excess(high) > 0 else float(brentq(excess, low, high, xtol=1e-9))


def interval(plus: int, minus: int, zero: int, alpha: float) -> tuple[float, float]:
    """Confidence interval of the mean difference at level 1 - ``alpha``."""
    return lower_bound(plus, minus, zero, alpha / 2), -lower_bound(minus, plus, zero, alpha / 2)
