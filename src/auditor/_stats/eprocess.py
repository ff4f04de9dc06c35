"""Evidence about a rate that may be read after any round: truncated beta mixtures of likelihood ratios.

A *round* holds K images, one for each prompt. Under the null hypothesis "the mean of the prompts' rates is at
least ``limit``" a likelihood ratio against a lower rate has factors 1 + l (x - limit) with l <= 0, whose mean
over a whole round is at most (1 + l (mean - limit))^K <= 1: by the inequality of arithmetic and geometric
means, and by Maclaurin's where a round is a random subset of the prompts (Hardy, Littlewood & Polya 1934).
Any mixture over alternatives is then a supermartingale in rounds; inside a round it is none, so evidence is
read at whole rounds only. Cutting the mixture at ``limit`` keeps l of one sign, which makes it valid for the
one-sided null (Robbins 1970; Howard, Ramdas, McAuliffe & Sekhon 2021). By Ville's inequality (1939) the
chance that the evidence ever reaches 1/u under the null is at most u: 1/max is a p-value, whatever decided
when to stop.

All functions take numbers or arrays (which broadcast) and work in logarithms. ``prior`` is the (a, b) of the
mixture's beta weights before they are cut.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaln, xlog1py, xlogy

Floats = NDArray[np.float64]
Prior = tuple[float, float]

_BISECTIONS = 40
_LEAST_SHARE = 1e-280
_NEGLIGIBLE = 1e-17


def log_evidence_below(hits: ArrayLike, n: ArrayLike, limit: float, prior: Prior) -> Floats:
    """log E-: evidence that the mean rate is below ``limit``, from ``hits`` in ``n`` images of whole rounds.

    E- = B_t(a + s, b + n - s) / (B_t(a, b) t^s (1 - t)^(n - s)) with t = ``limit`` and B_t the incomplete
    beta function up to t.
    """
    a, b = prior
    s, n = np.asarray(hits, float), np.asarray(n, float)
    mixed = _log_beta_up_to(limit, a + s, b + n - s) - _log_beta_up_to(limit, np.asarray(a), np.asarray(b))
    return np.asarray(mixed - xlogy(s, limit) - xlog1py(n - s, -limit))


def log_evidence_above(hits: ArrayLike, n: ArrayLike, limit: float, prior: Prior) -> Floats:
    """log E+: evidence that the mean rate is above ``limit``; the mixture is cut to (limit, 1)."""
    n = np.asarray(n, float)
    return log_evidence_below(n - np.asarray(hits, float), n, 1 - limit, (prior[1], prior[0]))


def _log_beta_up_to(t: float, a: Floats, b: Floats) -> Floats:
    """log of the incomplete beta function, the integral of x^(a-1) (1-x)^(b-1) from 0 to ``t``."""
    share = np.asarray(betainc(a, b, t))
    with np.errstate(divide="ignore"):
        value = np.asarray(betaln(a, b) + np.log(share))
    lost = share < _LEAST_SHARE  # far in the tail the regularised function nears the smallest double
    if lost.any():
        a, b = np.broadcast_to(a, value.shape)[lost], np.broadcast_to(b, value.shape)[lost]
        value[lost] = xlogy(a, t) + xlog1py(b, -t) - np.log(a) + np.log(_tail_series(t, a, b))
    return value


def _tail_series(t: float, a: Floats, b: Floats) -> Floats:
    """2F1(a + b, 1; a + 1; t) = sum of products of (a + b + k) t / (a + 1 + k): all terms positive (DLMF
    8.17.8).

    In the tail, where t is below the mean a / (a + b), the terms fall from the first on.
    """
    total, term, k = np.ones_like(a), np.ones_like(a), 0
    while float(np.max(term / total)) > _NEGLIGIBLE:
        term = term * (a + b + k) * t / (a + 1 + k)
        total, k = total + term, k + 1
    return total


def p_below(hits: ArrayLike, n: ArrayLike, limit: float, prior: Prior) -> float:
    """p-value against "the mean rate is at least ``limit``" from the running counts at the ends of all
    rounds so far."""
    return _p(log_evidence_below(hits, n, limit, prior))


def p_above(hits: ArrayLike, n: ArrayLike, limit: float, prior: Prior) -> float:
    """p-value against "the mean rate is at most ``limit``" from the running counts at the ends of all
    rounds so far."""
    return _p(log_evidence_above(hits, n, limit, prior))


def _p(log_evidence: Floats) -> float:
    return min(1.0, math.exp(-float(log_evidence.max()))) if log_evidence.size else 1.0


def upper_bound(hits: ArrayLike, n: ArrayLike, alpha: float, prior: Prior) -> float:
    """Upper confidence bound of the mean rate at 1 - ``alpha``, valid whenever sampling stopped: the limits
    that are not rejected.

    It is at most a limit exactly where :func:`p_below` at that limit is at most ``alpha``.
    """
    low, high = 0.0, 1.0
    if not np.size(n):
        return 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if p_below(hits, n, middle, prior) <= alpha else (middle, high)
    return high


def lower_bound(hits: ArrayLike, n: ArrayLike, alpha: float, prior: Prior) -> float:
    """Lower confidence bound of the mean rate at 1 - ``alpha``: one minus the upper bound of the rate of
    misses."""
    return 1 - upper_bound(np.asarray(n) - np.asarray(hits), n, alpha, (prior[1], prior[0]))
