"""The betting statistic for paired differences."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor._stats import paired

counts = st.integers(0, 80)


@given(counts, counts, counts, st.floats(-0.95, 0.9))
def test_evidence_falls_in_the_mean(plus: int, minus: int, zero: int, mean: float) -> None:
    assert (
        paired.log_evidence(plus, minus, zero, mean)
        >= paired.log_evidence(plus, minus, zero, mean + 0.05) - 1e-9
    )


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
    assert paired.log_evidence(0, 0, 20, -0.1) < math.log(20)
    assert paired.log_evidence(0, 0, 100, -0.1) > math.log(20)
    assert paired.log_evidence(0, 30, 70, -0.1) < 0


def test_arrays_give_what_numbers_give() -> None:
    together = paired.log_evidence(np.arange(4), 2, np.array([0, 5, 9, 9]), 0.2)
    assert together.tolist() == [
        float(paired.log_evidence(plus, 2, zero, 0.2))
        for plus, zero in zip(range(4), (0, 5, 9, 9), strict=True)
    ]


@pytest.mark.parametrize("prompts", [((0.5, 0.0), (0.0, 0.3)), ((0.2, 0.4), (0.1, 0.0), (0.0, 0.2))])
def test_a_round_of_prompts_at_the_null_is_expected_to_add_nothing(
    prompts: tuple[tuple[float, float], ...],
) -> None:
    """E[G after one more round] <= G, for prompts with chances (up, down) that differ but whose mean is
    the null's: enumeration."""
    mean = sum(up - down for up, down in prompts) / len(prompts)
    for before in ((0, 0, 0), (3, 1, 10), (0, 4, 6)):
        expected = 0.0
        for outcome in itertools.product((1, -1, 0), repeat=len(prompts)):
            chance = math.prod(
                {1: up, -1: down, 0: 1 - up - down}[d] for d, (up, down) in zip(outcome, prompts, strict=True)
            )
            after = [count + outcome.count(value) for count, value in zip(before, (1, -1, 0), strict=True)]
            expected += chance * math.exp(float(paired.log_evidence(*after, mean)))
        assert expected <= math.exp(float(paired.log_evidence(*before, mean))) * (1 + 1e-9)
