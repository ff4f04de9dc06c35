"""Exact levels and sizes: the printed figures of the design, and enumeration of every path."""

from __future__ import annotations

import itertools
import math

import pytest

from auditor._stats import eprocess
from auditor._stats.design import Design, Outlook, design, enough_images, fixed_outlook

PRIOR = (0.5, 0.5)


def plain(size: int, rounds: int, cells: int = 10) -> Design:
    return Design(size, rounds, 0.1, 0.1, 0.1, 0.05, cells, PRIOR)


@pytest.mark.parametrize(("size", "held", "failed"), [(1, 0.0369, 0.0025), (5, 0.0282, 0.0011)])
def test_exact_levels_at_the_limit(size: int, held: float, failed: float) -> None:
    """tau = 0.1, N = 250, m = 10, no futility."""
    outlook = plain(size, 250 // size).outlook(0.1, futility=False)
    assert (round(outlook.held, 4), round(outlook.failed, 4)) == (held, failed)


@pytest.mark.parametrize(("cells", "sequential", "fixed"), [(1, 160, 89), (10, 235, 142), (40, 290, 179)])
def test_how_many_images_suffice(cells: int, sequential: int, fixed: int) -> None:
    assert enough_images(5, 0.1, 0.1, 0.1, 0.05, cells, PRIOR) == sequential
    enough = next(
        n for n in range(20, 400) if fixed_outlook(n, 0.025, 0.1, 0.1, 0.05, cells).held >= 1 - 0.1 / cells
    )
    assert enough == fixed


@pytest.mark.parametrize(
    ("rate", "images"), [(0, 40), (0.025, 83), (0.05, 143), (0.2, 155), (0.5, 16), (0.8, 6)]
)
def test_mean_images_with_ten_cells(rate: float, images: int) -> None:
    assert round(plain(5, 47).outlook(rate).images) == images


def test_futility_saves_images_about_the_limit() -> None:
    assert round(plain(5, 47).outlook(0.1, futility=False).images) == 230
    assert 155 <= plain(5, 47).outlook(0.1).images <= 165


@pytest.mark.parametrize(("size", "limit", "images"), [(5, 0.1, 40), (1, 0.1, 36), (5, 0.08, 50)])
def test_where_a_rate_of_zero_is_held(size: int, limit: float, images: int) -> None:
    n = next(
        n for n in range(size, 100, size) if eprocess.log_evidence_below(0, n, limit, PRIOR) >= math.log(20)
    )
    assert n == images


def by_enumeration(cell: Design, rate: float, futility: bool) -> Outlook:
    """Every path of images, one by one."""
    held = failed = images = 0.0
    for path in itertools.product((0, 1), repeat=cell.rounds * cell.size):
        chance = math.prod(rate if hit else 1 - rate for hit in path)
        for done in range(1, cell.rounds + 1):
            n, hits = done * cell.size, sum(path[: done * cell.size])
            is_held = eprocess.p_below(hits, n, cell.tau_pass, PRIOR) <= cell.alpha
            is_failed = eprocess.p_above(hits, n, cell.tau_fail, PRIOR) <= cell.alpha / cell.cells
            if is_held or is_failed or done == cell.rounds or (futility and cell.hopeless(done, hits, hits)):
                held, failed, images = (
                    held + chance * is_held,
                    failed + chance * is_failed,
                    images + chance * n,
                )
                break
    return Outlook(rate, held, failed, images)


@pytest.mark.parametrize("futility", [False, True])
@pytest.mark.parametrize("rate", [0.1, 0.45, 0.8])
def test_the_recursion_is_the_sum_over_all_paths(rate: float, futility: bool) -> None:
    cell = Design(2, 6, 0.4, 0.5, 0.6, 0.2, 2, PRIOR)
    exact, counted = cell.outlook(rate, futility), by_enumeration(cell, rate, futility)
    for name in ("held", "failed", "images"):
        assert getattr(exact, name) == pytest.approx(getattr(counted, name), abs=1e-12)


def test_futility_only_closes_what_is_hardly_decidable() -> None:
    cell = design(5, 0.1, 0.08, 0.145, 0.05, 7, PRIOR, 400)
    for images, low, high in cell.futility_table:
        assert 0 < low <= high < images
    with_futility, without = (cell.outlook(0.025, futility) for futility in (True, False))
    assert without.held - with_futility.held < 0.01 and with_futility.images <= without.images


def test_a_budget_caps_the_rounds() -> None:
    assert design(5, 0.1, 0.1, 0.1, 0.05, 10, PRIOR, 1003).rounds == 200
    assert design(5, 0.1, 0.1, 0.1, 0.05, 10, PRIOR, 103).rounds == 20
    assert enough_images(5, 0.001, 0.0008, 0.03, 0.05, 1, PRIOR) is None
