"""What more images would decide: against enumeration of every path, simulation, and the limits of both."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.special import betaln

from auditor._stats import eprocess, paired
from auditor._stats.ahead import Test as Side
from auditor._stats.ahead import drop_ahead, first_reaching, rate_ahead
from auditor._stats.design import Design

PRIOR = (0.5, 0.5)
HELD, FAILED = Side(0.3, 0.2, below=True), Side(0.4, 0.2, below=False)


def chance_of(path: tuple[int, ...], low: int, n: int) -> float:
    """Of one sequence of coming images, under the Jeffreys posterior of ``low`` hits in ``n``."""
    hits = sum(path)
    a, b = 0.5 + low, 0.5 + n - low
    return math.exp(betaln(a + hits, b + len(path) - hits) - betaln(a, b))


@pytest.mark.parametrize(("low", "missing", "n"), [(0, 0, 0), (2, 0, 6), (1, 2, 6)])
def test_the_recursion_is_the_sum_over_all_paths(low: int, missing: int, n: int) -> None:
    size, rounds = 2, 5
    found = rate_ahead(low, missing, n, size, rounds, HELD, FAILED, PRIOR)
    held, failed = np.zeros(rounds + 1), np.zeros(rounds + 1)
    for path in itertools.product((0, 1), repeat=size * rounds):
        for done in range(1, rounds + 1):
            hits, images = low + sum(path[: size * done]), n + size * done
            is_held = eprocess.log_evidence_below(hits + missing, images, 0.3, PRIOR) >= math.log(5)
            is_failed = eprocess.log_evidence_above(hits, images, 0.4, PRIOR) >= math.log(5)
            if is_held or is_failed:
                (held if is_held else failed)[done] += chance_of(path, low, n - missing)
                break
    assert found.shown == pytest.approx(np.cumsum(held), abs=1e-9)
    assert found.against == pytest.approx(np.cumsum(failed), abs=1e-9)


@pytest.mark.parametrize("below", [True, False])
def test_where_a_test_decides_is_where_its_evidence_does(below: bool) -> None:
    test, n = Side(0.1, 0.05, below), np.array([5, 35, 40, 60, 200])
    evidence = eprocess.log_evidence_below if below else eprocess.log_evidence_above
    for images, edge in zip(n, test.decides_at(n, PRIOR), strict=True):
        good = [bool(evidence(hits, images, 0.1, PRIOR) >= math.log(20)) for hits in range(images + 1)]
        if below:
            assert edge == (max(np.flatnonzero(good)) if any(good) else -1)
        else:
            assert edge == (min(np.flatnonzero(good)) if any(good) else images + 1)


def test_chances_rise_and_the_mean_number_of_images_stays_below_the_most() -> None:
    found = rate_ahead(2, 0, 50, 5, 100, Side(0.08, 0.05, True), Side(0.145, 0.007, False), PRIOR)
    assert (np.diff(found.shown) >= 0).all() and (np.diff(found.against) >= 0).all()
    assert found.shown[-1] + found.against[-1] <= 1
    images = found.images()
    assert images[0] == 0 and images[1] == 5 and 5 < images[-1] < 500


def test_more_hits_make_it_less_likely_to_hold_and_more_likely_to_fail() -> None:
    ahead = [
        rate_ahead(hits, 0, 100, 5, 200, Side(0.08, 0.05, True), Side(0.145, 0.007, False), PRIOR)
        for hits in (2, 6, 10, 15, 22)
    ]
    held, failed = [float(each.shown[-1]) for each in ahead], [float(each.against[-1]) for each in ahead]
    assert held == sorted(held, reverse=True) and failed == sorted(failed)
    assert held[0] > 0.8 and failed[-1] > 0.8


def test_a_drop_is_simulated_as_it_is_tested() -> None:
    """Against a plain simulation of the same paths, read after every round."""
    rounds, paths = 20, 1000
    random = np.random.default_rng(1)
    shares = random.dirichlet((1.5, 3.5, 60.5), paths)
    drawn = np.cumsum([[random.multinomial(10, each) for each in shares] for _ in range(rounds)], 0)
    up, down, same = np.moveaxis(drawn, 2, 0)
    good = paired.log_evidence(1 + up, 3 + down, 60 + same, -0.1) >= math.log(20)
    plain = np.maximum.accumulate(good, 0).mean(1)
    assert drop_ahead(1, 3, 60, 10, rounds, 0.1, 0.05).shown[1:] == pytest.approx(plain, abs=0.08)
    assert 0.2 < plain[-1] < 0.95


def test_a_drop_that_is_there_is_not_likely_to_be_shown_away() -> None:
    assert drop_ahead(0, 60, 60, 10, 100, 0.1, 0.05).shown[-1] == 0
    assert drop_ahead(3, 9, 60, 10, 0, 0.1, 0.05).shown.tolist() == [0]


def test_the_first_place_that_reaches() -> None:
    assert first_reaching(np.array([0.0, 0.2, 0.8, 0.9]), 0.8) == 2
    assert first_reaching(np.array([0.0, 0.2]), 0.8) == 1


@pytest.mark.parametrize(("rate", "which"), [(0.08, "held"), (0.145, "failed")])
def test_however_often_a_budget_is_raised_the_level_is_kept(rate: float, which: str) -> None:
    """At the limit, drawn on up to 1,500 images, no more than alpha decide wrongly."""
    cell = Design(5, 300, 0.1, 0.08, 0.145, 0.05, 7, PRIOR)
    allowed = 0.05 if which == "held" else 0.05 / 7
    assert 0 < getattr(cell.outlook(rate, futility=False), which) <= allowed
