"""Claims end as they must for what was measured, and what was not measured decides nothing."""

from __future__ import annotations

from typing import Any

import pytest

from auditor._stats.contrasts import Estimate
from auditor._study.claims import hold
from auditor._study.document import Bar, Claim, Figure

VARIANCE = 0.0001


class Measured:
    """Stands for findings: estimates by bar."""

    def __init__(self, **values: tuple[float, ...] | None) -> None:
        self._values = values

    def not_fitted(self, bars: object) -> str:
        return ""

    def estimate(self, bar: Bar, measure: str, probed: bool = True) -> Estimate | None:
        values = self._values[bar.label]
        return None if values is None else Estimate(values, VARIANCE)


def answer(test: str, measured: Measured, **claim: Any) -> str:
    bars = tuple(Bar(label=label, set="s") for label in measured._values)
    figure = Figure(name="f", title="t", bars=bars, claims=(Claim(says="so", test=test, **claim),))
    return hold(measured, figure)[0].answer  # type: ignore[arg-type]


UP = Measured(a=(0.0, 0.02, 0.01), b=(0.2, 0.25, 0.22), c=(0.5, 0.52, 0.48))
FLAT = Measured(a=(0.1, 0.12, 0.11), b=(0.11, 0.1, 0.12), c=(0.12, 0.11, 0.1))
NOISY = Measured(a=(0.0, 0.5, 0.1), b=(0.6, 0.0, 0.3), c=(0.1, 0.9, 0.4))
DOWN = Measured(a=(0.5, 0.52, 0.48), b=(0.2, 0.25, 0.22), c=(0.0, 0.02, 0.01))


@pytest.mark.parametrize(
    ("test", "measured", "expected"),
    [
        ("rises", UP, "agrees"),
        ("rises", FLAT, "disagrees"),
        ("rises", DOWN, "disagrees"),
        ("rises", NOISY, "undecided"),
        ("falls", DOWN, "agrees"),
        ("falls", UP, "disagrees"),
        ("same", FLAT, "agrees"),
        ("same", UP, "disagrees"),
        ("same", NOISY, "undecided"),
        ("grows", UP, "agrees"),
        ("unchanged", Measured(a=(0.0, 0.01, -0.01)), "agrees"),
        ("unchanged", Measured(a=(-0.4, -0.41, -0.4), b=(0.0, 0.0, 0.0)), "disagrees"),
        ("grows", Measured(a=(-0.4, -0.41, -0.4), b=(0.0, 0.0, 0.0)), "disagrees"),
    ],
)
def test_claims_end_as_they_must(test: str, measured: Measured, expected: str) -> None:
    assert answer(test, measured) == expected


def test_groups_are_compared_by_their_means() -> None:
    assert answer("above", UP, groups=(("b", "c"), ("a",))) == "agrees"
    assert answer("above", UP, groups=(("a",), ("b", "c"))) == "disagrees"


@pytest.mark.parametrize("test", ["rises", "falls", "same", "unchanged", "grows"])
def test_what_was_not_measured_decides_nothing(test: str) -> None:
    for measured in (
        Measured(a=(0.0, 0.0, 0.0), b=None, c=(0.9, 0.9, 0.9)),
        Measured(a=(0.0,), b=(0.5,), c=(0.9,)),
    ):
        assert answer(test, measured) == "undecided"


def test_three_replicates_without_any_hit_do_not_prove_equality_beyond_their_images() -> None:
    """0 of 5 in each is no proof that rates differ by less than 0.1."""
    from auditor._stats.contrasts import rate_variance

    few = Measured(a=(0.0, 0.0, 0.0), b=(0.0, 0.0, 0.0))
    few.estimate = lambda bar, measure, probed=True: Estimate((0.0, 0.0, 0.0), rate_variance(0, 5))  # type: ignore[method-assign]
    assert answer("same", few, measure="detected") == "undecided"


@pytest.mark.parametrize("test", ["rises", "falls", "same"])
def test_where_nothing_came_back_nothing_is_told_apart(test: str) -> None:
    """Equal zeros would be "the same" whatever the truth is."""
    assert answer(test, Measured(a=(0.0, 0.01, 0.0), b=(0.0, 0.0, 0.0), c=(0.01, 0.0, 0.0))) == "undecided"


def test_one_replicate_in_which_it_came_back_is_no_nothing() -> None:
    """0.9, 0.1 and 0.9 may be 0 on average for all that three replicates say, and yet something came back."""
    torn = Measured(a=(0.9, 0.1, 0.9), b=(0.0, 0.0, 0.0))
    bars = tuple(Bar(label=label, set="s") for label in ("a", "b"))
    figure = Figure(name="f", title="t", bars=bars, claims=(Claim(says="so", test="same"),))
    (held,) = hold(torn, figure)  # type: ignore[arg-type]
    assert held.answer == "undecided" and "a less b" in held.measured
    slight = Measured(a=(0.08, 0.0, 0.0), b=(0.0, 0.0, 0.0))
    (held,) = hold(slight, figure)  # type: ignore[arg-type]
    assert held.answer == "undecided" and "nothing came back" in held.measured


def test_a_probe_that_did_not_take_decides_nothing() -> None:
    idle = Measured(a=(0.0, 0.02, 0.01), b=(0.2, 0.25, 0.22), c=(0.5, 0.52, 0.48))
    idle.not_fitted = lambda bars: "b"  # type: ignore[method-assign]
    assert answer("rises", idle) == "undecided"
