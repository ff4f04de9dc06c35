"""Estimates over replicates: both sources of chance count, and differences are taken within replicates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, ttest_1samp

from auditor._stats.contrasts import Estimate, contrast, rate_variance, rise


def test_the_interval_over_replicates_is_students() -> None:
    values = (0.2, 0.35, 0.5)
    expected = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert Estimate(values, 0.0).interval() == pytest.approx((expected.low, expected.high))


def test_equal_replicates_are_not_certainty() -> None:
    """Three times 0 of 50 must not read as a rate of exactly 0."""
    lower, upper = Estimate((0.0, 0.0, 0.0), rate_variance(0, 50)).interval()
    assert lower < 0 < upper and 0.02 < upper < 0.06


def test_the_variance_of_a_rate_is_at_least_that_of_its_images() -> None:
    """Whatever the prompts' rates, a mean of n images varies at most p (1 - p) / n."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        rates = rng.uniform(size=10)
        n = 10 * 20
        own = float((rates * (1 - rates)).mean()) / n
        p = float(rates.mean())
        assert own <= p * (1 - p) / n + 1e-12
        assert rate_variance(round(p * n), n) >= 0.95 * own


def test_the_interval_of_one_replicate_covers_a_rate_as_often_as_it_says() -> None:
    """Exact: the sum of binomial chances of all counts whose interval holds the rate."""
    n = 60
    for p in (0.1, 0.3, 0.5, 0.8):
        inside = [
            h
            for h in range(n + 1)
            if (i := Estimate((h / n,), rate_variance(h, n)).interval())[0] <= p <= i[1]
        ]
        assert float(binom.pmf(inside, n, p).sum()) > 0.92


def test_a_difference_is_taken_within_replicates() -> None:
    """Replicates that differ a lot and change alike change surely."""
    before, after = Estimate((0.0, 0.4, 0.8), 1e-6), Estimate((0.1, 0.5, 0.9), 1e-6)
    change = contrast([1, -1], [after, before])
    assert change.value == pytest.approx(0.1) and change.variance == pytest.approx(2e-6)
    assert change.interval()[0] > 0.09


def test_rise_is_the_least_squares_line_times_its_length() -> None:
    rng = np.random.default_rng(1)
    table = rng.uniform(size=(4, 3))  # conditions x replicates
    estimates = [Estimate(tuple(row), 0.01) for row in table]
    slopes = [np.polyfit(range(4), table[:, column], 1)[0] * 3 for column in range(3)]
    assert rise(estimates).values == pytest.approx(slopes)
    assert math.isclose(rise(estimates[:2]).value, float(table[1].mean() - table[0].mean()))


def test_other_replicates_cannot_be_contrasted() -> None:
    with pytest.raises(ValueError, match="same replicates"):
        contrast([1, -1], [Estimate((0.1, 0.2), 0.0), Estimate((0.1,), 0.0)])
