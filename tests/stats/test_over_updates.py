"""The outer test over updates: printed figures, exact levels, and enumeration of every sequence."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom

from auditor._stats import ahead, eprocess
from auditor._stats.over_updates import WORTH, ShareDesign, ShareOutlook, back_chance, unclean_chance

PRIOR = (0.5, 0.5)


def claim(share: float, updates: int = 60, hypotheses: int = 1) -> ShareDesign:
    return ShareDesign(share, updates, 0.05, 0.05, hypotheses, PRIOR)


@pytest.mark.parametrize(("share", "updates"), [(0.2, [18, 33, 44]), (0.1, [38, 68, 90])])
def test_updates_to_pass_with_none_one_and_two_unclean(share: float, updates: list[int]) -> None:
    assert [claim(share).to_pass(unclean) for unclean in (0, 1, 2)] == updates


@pytest.mark.parametrize(
    ("share", "hypotheses", "updates"), [(0.2, 1, 3), (0.1, 1, 2), (0.2, 2, 4), (0.1, 2, 3)]
)
def test_updates_to_fail_in_a_row(share: float, hypotheses: int, updates: int) -> None:
    assert claim(share, hypotheses=hypotheses).to_fail() == updates


def test_what_no_number_of_updates_shows() -> None:
    assert claim(0.001).to_pass(5) is None
    assert ShareDesign(0.999, 60, 0.001, 0.2, 1, PRIOR).to_fail() is None


@pytest.mark.parametrize(
    ("share", "misread", "chance"),
    [(0.2, 0.02, 0.984), (0.2, 0.05, 0.787), (0.1, 0.02, 0.464), (0.1, 0.05, 0.142)],
)
def test_chance_to_pass_within_sixty_where_clean_updates_are_misread(
    share: float, misread: float, chance: float
) -> None:
    assert round(claim(share).outlook(unclean_chance(0.0, misread=misread)).passed, 3) == chance


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.5])
@pytest.mark.parametrize("alpha_in", [0.01, 0.05, 0.3])
def test_exact_levels_at_the_limits_are_below_alpha(share: float, alpha_in: float) -> None:
    design = ShareDesign(share, 150, 0.05, alpha_in, 2, PRIOR)
    least_favourable = design.outlook(unclean_chance(share, missed=alpha_in), futility=False)
    assert 0 < least_favourable.passed <= 0.05
    proven = back_chance(share, false=alpha_in)
    assert 0 < design.outlook(proven, proven, futility=False).failed <= 0.025


def test_an_inner_error_that_is_left_out_costs_the_level() -> None:
    """Read against ``share`` itself, updates that are missed with chance ``alpha_in`` PASS too often."""
    careless = ShareDesign(0.2, 60, 0.05, 0.0, 1, PRIOR)
    assert careless.outlook(unclean_chance(0.2, missed=0.2)).passed > 0.09


def fail_is_worth(design: ShareDesign, back: int, n: int) -> bool:
    against = ahead.Test(design.limit_back, design.alpha / design.hypotheses, below=False)
    coming = ahead.rate_ahead(back, 0, n, 1, design.updates - n, against, None, PRIOR)
    return float(coming.shown[-1]) >= WORTH


def by_enumeration(design: ShareDesign, unclean: float, back: float) -> ShareOutlook:
    """Every sequence of updates that are clean (0), unclean (1) or back (2), by the audit's own p-values."""
    passed = failed = updates = 0.0
    chances = 1 - unclean, unclean - back, back
    for path in itertools.product((0, 1, 2), repeat=design.updates):
        chance = math.prod(chances[each] for each in path)
        found, proven = np.cumsum(np.array(path) > 0), np.cumsum(np.array(path) == 2)
        numbers = np.arange(1, design.updates + 1)
        for n in numbers:
            holds = eprocess.p_below(found[:n], numbers[:n], design.limit_unclean, PRIOR) <= design.alpha
            fails = eprocess.p_above(proven[:n], numbers[:n], design.limit_back, PRIOR) <= (
                design.alpha / design.hypotheses
            )
            more = np.arange(1, design.updates - n + 1)
            goes_on = more.size > 0 and bool(
                (
                    eprocess.log_evidence_below(found[n - 1], n + more, design.limit_unclean, PRIOR)
                    >= -math.log(design.alpha)
                ).any()
                or fail_is_worth(design, int(proven[n - 1]), int(n))
            )
            if holds or fails or not goes_on:
                passed, failed, updates = (
                    passed + chance * (holds and not fails),
                    failed + chance * fails,
                    updates + chance * float(n),
                )
                break
    return ShareOutlook(passed, failed, updates)


@pytest.mark.parametrize(("unclean", "back"), [(0.0, 0.0), (0.2, 0.1), (0.6, 0.6), (0.9, 0.3), (1.0, 0.8)])
def test_the_recursion_is_the_sum_over_all_sequences(unclean: float, back: float) -> None:
    design = ShareDesign(0.5, 7, 0.2, 0.1, 2, PRIOR)
    exact, counted = design.outlook(unclean, back), by_enumeration(design, unclean, back)
    for name in ("passed", "failed", "updates"):
        assert getattr(exact, name) == pytest.approx(getattr(counted, name), abs=1e-12)
    assert exact.undecided == pytest.approx(1 - counted.passed - counted.failed, abs=1e-12)


def test_more_bad_updates_pass_less_and_fail_more() -> None:
    design = claim(0.2, hypotheses=2)
    found = [
        design.outlook(unclean_chance(share, misread=0.01), share) for share in (0, 0.05, 0.1, 0.2, 0.4, 0.9)
    ]
    passed, failed = [each.passed for each in found], [each.failed for each in found]
    assert passed == sorted(passed, reverse=True) and failed == sorted(failed)
    assert passed[0] > 0.99 and failed[-1] > 0.99


def test_chances_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="no chances of one update"):
        claim(0.2).outlook(0.1, 0.2)


def test_a_fixed_number_of_updates_keeps_the_same_levels() -> None:
    design = claim(0.2, hypotheses=2)
    for n in (10, 16, 31, 60):
        at_limit = design.fixed_outlook(n, design.limit_unclean, design.limit_back)
        assert at_limit.passed <= 0.05 and at_limit.failed <= 0.025
        most, least = design.fixed_edges(n)
        assert binom.cdf(most + 1, n, design.limit_unclean) > 0.05
        assert binom.sf(least - 2, n, design.limit_back) > 0.025
    assert design.fixed_edges(10) == (-1, 6)


def test_the_fixed_design_of_equal_power() -> None:
    design = claim(0.2, hypotheses=2)
    power = design.outlook(0.05, 0.05).passed
    n = design.fixed_size(0.05, power)
    assert n is not None and design.fixed_outlook(n, 0.05).passed >= power
    assert all(design.fixed_outlook(fewer, 0.05).passed < power for fewer in range(1, n))
    assert design.fixed_size(0.3, 0.9) is None
