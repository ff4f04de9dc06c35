"""Fixed-size tests and bounds, against brute force."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor._stats import binomial


@pytest.mark.parametrize(("n", "held"), [(35, None), (36, 0), (58, 1), (60, 1), (80, 2), (95, 3), (112, 4)])
def test_the_most_hits_that_still_hold_at_eight_percent(n: int, held: int | None) -> None:
    assert binomial.largest_held(n, 0.08, 0.05) == held


def poisson_binomial(chances: list[float]) -> list[float]:
    """P(X = s) for independent Bernoulli variables with these chances."""
    mass = [1.0]
    for chance in chances:
        mass = [
            (mass[s] if s < len(mass) else 0) * (1 - chance) + (mass[s - 1] * chance if s else 0)
            for s in range(len(mass) + 1)
        ]
    return mass


@given(st.lists(st.floats(0, 1), min_size=2, max_size=5), st.integers(4, 12))
def test_the_level_holds_for_any_mix_of_prompts_at_the_limit(weights: list[float], rounds: int) -> None:
    """Hoeffding 1956: prompts of unequal rates with mean 0.1 are wrongly held with at most the nominal
    chance."""
    total = sum(weights)
    if total == 0 or max(weights) / total * 0.1 * len(weights) > 1:
        return
    chances = [weight / total * 0.1 * len(weights) for weight in weights] * rounds
    mass, n = poisson_binomial(chances), len(chances)
    wrong = sum(p for s, p in enumerate(mass) if binomial.p_held(s, n, 0.1) <= 0.05)
    assert wrong <= 0.05 + 1e-12
    wrong_fail = sum(p for s, p in enumerate(mass) if binomial.p_failed(s, n, 0.1) <= 0.05)
    assert wrong_fail <= 0.05 + 1e-12


def test_bounds_agree_with_their_tests() -> None:
    for n, limit in itertools.product((20, 60, 100), (0.08, 0.145)):
        for hits in range(n + 1):
            if hits <= n * limit - 1:
                assert (binomial.upper_bound(hits, n, 0.05) <= limit) == (
                    binomial.p_held(hits, n, limit) <= 0.05
                )
            if hits >= n * limit + 1:
                assert (binomial.lower_bound(hits, n, 0.05) >= limit) == (
                    binomial.p_failed(hits, n, limit) <= 0.05
                )


def test_no_images_prove_nothing() -> None:
    assert binomial.p_held(0, 0, 0.1) == binomial.p_failed(0, 0, 0.1) == 1.0
    assert (binomial.lower_bound(0, 0, 0.05), binomial.upper_bound(0, 0, 0.05)) == (0.0, 1.0)


@pytest.mark.parametrize(("hits", "n"), [(-1, 5), (6, 5)])
def test_impossible_counts_are_refused(hits: int, n: int) -> None:
    with pytest.raises(ValueError, match="no count"):
        binomial.p_held(hits, n, 0.1)
