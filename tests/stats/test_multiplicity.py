"""Holm's procedure."""

from __future__ import annotations

import pytest

from auditor._stats.multiplicity import holm


def test_steps_down_and_stops_at_the_first_that_stays() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005], 0.05, 4) == [True, False, False, True]


def test_planned_hypotheses_without_a_value_still_count() -> None:
    assert holm([0.02], 0.05, 2) == [True]
    assert holm([0.02], 0.05, 10) == [False]


def test_more_values_than_planned_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 p-values for 1"):
        holm([0.1, 0.2], 0.05, 1)
