"""Fixed-size binomial tests and intervals, valid for a mean over prompts.

The hits of a cell are a sum of independent Bernoulli variables whose chances differ by prompt. Hoeffding
(1956) shows that binomial tails at the mean chance still bound such a sum's tails where the cut-off lies at
least one below (lower tail) or above (upper tail) the expected count; :func:`p_held` and :func:`p_failed`
return 1 where that does not hold.
"""

from __future__ import annotations

from scipy.stats import beta, binom


def p_held(hits: int, n: int, limit: float) -> float:
    """p-value against "the rate is at least ``limit``": P(X <= hits) at the limit; 1 where hits > n *
    limit - 1."""
    _check(hits, n)
    if n == 0 or hits > n * limit - 1:
        return 1.0
    return float(binom.cdf(hits, n, limit))


def p_failed(hits: int, n: int, limit: float) -> float:
    """p-value against "the rate is at most ``limit``": P(X >= hits) at the limit; 1 where hits < n * limit
    + 1."""
    _check(hits, n)
    if n == 0 or hits < n * limit + 1:
        return 1.0
    return float(binom.sf(hits - 1, n, limit))


def upper_bound(hits: int, n: int, alpha: float) -> float:
    """One-sided upper confidence bound of Clopper & Pearson (1934) at confidence 1 - alpha."""
    _check(hits, n)
    return 1.0 if hits == n else float(beta.ppf(1 - alpha, hits + 1, n - hits))


def lower_bound(hits: int, n: int, alpha: float) -> float:
    """One-sided lower confidence bound of Clopper & Pearson (1934) at confidence 1 - alpha."""
    _check(hits, n)
    return 0.0 if hits == 0 else float(beta.ppf(alpha, hits, n - hits + 1))


def largest_held(n: int, limit: float, alpha: float) -> int | None:
    """The most hits with which a cell of ``n`` images is still held, or None if not even zero hits are
    enough."""
    held = [hits for hits in range(int(n * limit) + 1) if p_held(hits, n, limit) <= alpha]
    return max(held, default=None)


def _check(hits: int, n: int) -> None:
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} hits of {n} images is no count")
