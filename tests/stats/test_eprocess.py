"""Evidence about a rate: against quadrature and enumeration, and the supermartingale property round by
round."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import beta

from auditor._stats import eprocess

PRIOR = (0.5, 0.5)
LIMITS = st.floats(0.02, 0.98)


@pytest.mark.parametrize(
    ("hits", "n", "limit"), [(0, 40, 0.1), (3, 60, 0.08), (9, 50, 0.1), (50, 50, 0.1), (0, 1, 0.9)]
)
@pytest.mark.parametrize("prior", [PRIOR, (1.0, 1.0), (0.5, 2.0)])
def test_evidence_is_the_mixture_that_it_claims_to_be(
    hits: int, n: int, limit: float, prior: tuple[float, float]
) -> None:
    """The average of likelihood ratios under beta weights that are cut at the limit, by quadrature."""

    def ratio(theta: float) -> float:
        return math.exp(hits * math.log(theta / limit) + (n - hits) * math.log((1 - theta) / (1 - limit)))

    def mixed(low: float, high: float) -> float:
        weight = quad(lambda theta: beta.pdf(theta, *prior), low, high)[0]
        return quad(lambda theta: ratio(theta) * beta.pdf(theta, *prior), low, high, limit=200)[0] / weight

    assert math.exp(eprocess.log_evidence_below(hits, n, limit, prior)) == pytest.approx(
        mixed(0, limit), rel=1e-4
    )
    assert math.exp(eprocess.log_evidence_above(hits, n, limit, prior)) == pytest.approx(
        mixed(limit, 1), rel=1e-4
    )


@pytest.mark.parametrize(
    ("hits", "n", "limit"),
    [(500, 1000, 0.05), (551, 1000, 0.08), (3178, 4000, 0.5), (100, 10_000, 0.9), (10_000, 10_000, 0.001)],
)
def test_far_tails_agree_with_high_precision(hits: int, n: int, limit: float) -> None:
    import mpmath

    mpmath.mp.dps = 60

    def evidence(s: int, t: float) -> float:
        t = mpmath.mpf(t)
        mixed = mpmath.betainc(0.5 + s, 0.5 + n - s, 0, t) / mpmath.betainc(0.5, 0.5, 0, t)
        return float(mpmath.log(mixed) - s * mpmath.log(t) - (n - s) * mpmath.log(1 - t))

    assert float(eprocess.log_evidence_below(hits, n, limit, PRIOR)) == pytest.approx(
        evidence(hits, limit), rel=1e-6, abs=1e-6
    )
    assert float(eprocess.log_evidence_above(n - hits, n, 1 - limit, PRIOR)) == pytest.approx(
        evidence(hits, limit), rel=1e-6, abs=1e-6
    )


def test_far_tails_stay_finite() -> None:
    assert eprocess.log_evidence_below(2000, 2000, 0.01, PRIOR) == pytest.approx(
        math.log(0.01**0.5 / 2000.5) - math.log(beta.cdf(0.01, 0.5, 0.5) * math.pi), abs=0.1
    )
    for hits in (0, 1, 1000, 3999, 4000):
        for limit in (0.001, 0.1, 0.999):
            assert np.isfinite(eprocess.log_evidence_below(hits, 4000, limit, PRIOR))
            assert np.isfinite(eprocess.log_evidence_above(hits, 4000, limit, PRIOR))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), LIMITS, st.integers(0, 30), st.integers(0, 30))
def test_a_round_of_prompts_at_the_limit_is_expected_to_add_nothing(
    rates: list[float], limit: float, hits: int, misses: int
) -> None:
    """E[E after one more round | so far] <= E so far, for any prompts whose mean rate lies on the null's
    side: by enumeration."""
    mean, size = float(np.mean(rates)), len(rates)
    outcomes = list(itertools.product((0, 1), repeat=size))
    chances = [
        math.prod(p if x else 1 - p for p, x in zip(rates, outcome, strict=True)) for outcome in outcomes
    ]
    sums = np.array([sum(outcome) for outcome in outcomes])
    for evidence, is_null in (
        (eprocess.log_evidence_below, mean >= limit),
        (eprocess.log_evidence_above, mean <= limit),
    ):
        if is_null:
            now = float(np.exp(evidence(hits, hits + misses, limit, PRIOR)))
            then = np.exp(evidence(hits + sums, hits + misses + size, limit, PRIOR))
            assert float(np.dot(chances, then)) <= now * (1 + 1e-9)


def test_inside_a_round_evidence_means_nothing() -> None:
    """Four silent prompts, then one that always fires (mean 0.2): read image by image in the prompts'
    order it "holds" at image 36, with certainty; read at the ends of rounds it never does."""
    by_prompt = np.concatenate([np.zeros(200), np.ones(50)])
    n, hits = np.arange(1, 251), np.cumsum(by_prompt)
    image_by_image = eprocess.log_evidence_below(hits, n, 0.1, PRIOR) >= math.log(20)
    assert int(np.flatnonzero(image_by_image)[0]) + 1 == 36
    rounds = np.arange(1, 51)
    assert eprocess.p_below(rounds, 5 * rounds, 0.1, PRIOR) == 1.0
    assert eprocess.p_above(rounds, 5 * rounds, 0.1, PRIOR) <= 0.05


def test_evidence_rises_with_the_hits_that_it_asks_for() -> None:
    """Why a missing image may be counted against the claim: evidence is monotone in every outcome."""
    hits = np.arange(61)
    for limit in (0.05, 0.1, 0.8):
        assert (np.diff(eprocess.log_evidence_below(hits, 60, limit, PRIOR)) < 0).all()
        assert (np.diff(eprocess.log_evidence_above(hits, 60, limit, PRIOR)) > 0).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), LIMITS)
def test_bounds_are_the_limits_that_are_not_rejected(rounds: list[int], limit: float) -> None:
    hits, n = np.cumsum(rounds), 5 * np.arange(1, len(rounds) + 1)
    upper, lower = eprocess.upper_bound(hits, n, 0.05, PRIOR), eprocess.lower_bound(hits, n, 0.05, PRIOR)
    if abs(upper - limit) > 1e-9:
        assert (upper < limit) == (eprocess.p_below(hits, n, limit, PRIOR) <= 0.05)
    if abs(lower - limit) > 1e-9:
        assert (lower > limit) == (eprocess.p_above(hits, n, limit, PRIOR) <= 0.05)


def test_nothing_drawn_says_nothing() -> None:
    assert eprocess.p_below([], [], 0.1, PRIOR) == eprocess.p_above([], [], 0.1, PRIOR) == 1.0
    assert (eprocess.lower_bound([], [], 0.05, PRIOR), eprocess.upper_bound([], [], 0.05, PRIOR)) == (
        0.0,
        1.0,
    )
