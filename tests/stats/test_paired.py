"""The betting statistic for paired differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.stats import paired

counts = st.integers(0, 80)


@given(counts, counts, counts, st.floats(-0.95, 0.9))
def test_evidence_falls_in_the_mean(plus: int, minus: int, zero: int, mean: float) -> None:
    assert paired.log_evidence(plus, minus, zero, mean) >= paired.log_evidence(plus, minus, zero, mean + 0.05) - 1e-9


@given(counts, counts, counts)
def test_the_interval_holds_the_estimate(plus: int, minus: int, zero: int) -> None:
    n = plus + minus + zero
    if n:
        low, high = paired.interval(plus, minus, zero, 0.05)
        assert low - 1e-6 <= (plus - minus) / n <= high + 1e-6


@pytest.mark.parametrize("mean", [-0.1, 0.0, 0.3])
def test_the_expected_evidence_under_the_null_is_at_most_one(mean: float) -> None:
    """One pair drawn from any distribution on {-1, 0, 1} with that mean has E[G] <= 1: Ville's condition."""
    for zero in (0.0, 0.3, 1 - abs(mean)):
        plus = (1 - zero + mean) / 2
        minus = 1 - zero - plus
        if minus < 0 or plus < 0:
            continue
        chances = ((plus, (1, 0, 0)), (minus, (0, 1, 0)), (zero, (0, 0, 1)))
        expected = sum(chance * math.exp(paired.log_evidence(*outcome, mean)) for chance, outcome in chances)
        assert expected <= 1 + 1e-9


def test_no_drop_is_shown_only_with_enough_pairs() -> None:
    assert paired.p_drop_too_large(0, 0, 20, 0.1) > 0.05
    assert paired.p_drop_too_large(0, 0, 60, 0.1) <= 0.05
    assert paired.p_drop_too_large(20, 0, 80, 0.1) == 1.0


def test_coverage_by_simulation() -> None:
    rng = np.random.default_rng(0)
    misses = 0
    for _ in range(400):
        drawn = rng.choice([1, -1, 0], p=[0.3, 0.1, 0.6], size=60)
        low, high = paired.interval(int((drawn == 1).sum()), int((drawn == -1).sum()), int((drawn == 0).sum()), 0.05)
        misses += not low <= 0.2 <= high
    assert misses <= 0.05 * 400
