"""The reading of one update: printed figures, exact levels, and enumeration of every path of images."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from auditor._stats import eprocess, paired
from auditor._stats.one_update import Read, UpdateDesign

PRIOR = (0.5, 0.5)
MICRO = UpdateDesign(5, 240, 10, 150, 0.06, 0.145, 0.25, 0.05, 0.05, PRIOR)


def suffices(design: UpdateDesign, control: str, rate: float, images: int) -> bool:
    """Are so many images the least, in whole rounds, with which a test shows what it is for with a chance of
    97 %? (The chance rises in the images.)"""
    field, size = ("images", design.size) if control == "gate" else ("retained", design.retained_size)
    enough, fewer = (
        getattr(replace(design, **{field: most}, first=0), control)(rate).shown
        for most in (images, images - size)
    )
    return bool(fewer < 0.97 <= enough)


@pytest.mark.parametrize(
    ("tau_pass", "rate", "images"), [(0.08, 0.0, 50), (0.08, 0.01, 155), (0.06, 0.0, 65), (0.06, 0.01, 240)]
)
def test_images_that_hold_with_a_chance_of_97_percent(tau_pass: float, rate: float, images: int) -> None:
    assert suffices(replace(MICRO, tau_pass=tau_pass), "gate", rate, images)


@pytest.mark.parametrize(
    ("size", "drop", "loss", "images"),
    [
        *((1, 0.1, loss, images) for loss, images in ((0.0, 41), (0.02, 158), (0.04, 372))),
        *((5, 0.25, loss, images) for loss, images in ((0.0, 15), (0.02, 35), (0.04, 55))),
        *((10, 0.1, loss, images) for loss, images in ((0.0, 50), (0.02, 180), (0.04, 390))),
        *((10, 0.25, loss, images) for loss, images in ((0.0, 20), (0.02, 40), (0.04, 60))),
    ],
)
def test_images_that_show_life_with_a_chance_of_97_percent(
    size: int, drop: float, loss: float, images: int
) -> None:
    design = replace(MICRO, retained_size=size, max_drop=drop)
    assert suffices(design, "alive", loss, images)


def test_mean_images_without_a_limit_that_bites() -> None:
    """Drawn until decided: means over all updates, those that take long among them."""
    held = replace(MICRO, images=1000)
    assert round(held.gate(0.0).images) == 65 and 105 <= held.gate(0.01).images < 110
    alive = replace(MICRO, retained=500, retained_size=5)
    assert round(alive.alive(0.0).images) == 15 and 18 <= alive.alive(0.02).images < 20


@pytest.mark.parametrize("alpha_in", [0.05, 0.2])
def test_exact_levels_at_the_limits_are_below_alpha_in(alpha_in: float) -> None:
    design = replace(MICRO, alpha_in=alpha_in)
    assert 0 < design.gate(0.06).shown <= alpha_in
    assert 0 < design.gate(0.145).against <= alpha_in
    assert 0 < design.alive(0.25).shown <= alpha_in
    assert 0 < design.negative(0.05).shown <= alpha_in


def test_an_update_at_either_limit_is_hardly_ever_read_clean() -> None:
    assert MICRO.outlook(0.06).clean <= 0.05 and MICRO.outlook(0.0, 0.25).clean <= 0.05
    assert MICRO.outlook(0.06, 0.25).clean <= 0.05**2
    assert MICRO.outlook(0.145).back <= 0.05 and MICRO.outlook(1.0, false=0.05).back <= 0.05


def test_good_and_bad_updates_are_read_as_what_they_are() -> None:
    good, bad = MICRO.outlook(0.005, 0.02), MICRO.outlook(0.9)
    assert good.clean > 0.999 and good.back < 1e-6 and bad.clean < 1e-6 and bad.back > 0.999
    assert bad.images < 15 < 65 < good.images < 100
    assert MICRO.gate(0.3).undecided < 0.005


def by_enumeration(
    design: UpdateDesign, rate: float, *, size: int, most: int, first: int, which: str
) -> Read:
    """Every path of images, one by one, with the audit's own rules: what is drawn until a look ends it."""
    shown_p = against_p = drawn = 0.0
    last = most // size * size
    for path in itertools.product((0, 1), repeat=last):
        chance = math.prod(rate if hit else 1 - rate for hit in path)
        shown = against = False
        for n in range(size, last + 1, size):
            hits = sum(path[:n])
            good, bad, may_good, may_bad = _looks(design, which, hits, n, last - n, size)
            shown, against = shown or (good and not against), against or (bad and not shown)
            seems_gone = hits <= (design.tau_pass + design.tau_fail) / 2 * n
            goes_on = may_good if which != "gate" or seems_gone else may_bad
            if n >= first and (shown or against or n == last or not goes_on):
                shown_p, against_p = shown_p + chance * shown, against_p + chance * against
                drawn += chance * n
                break
    return Read(shown_p, against_p, drawn)


@cache
def _looks(
    design: UpdateDesign, which: str, hits: int, n: int, left: int, size: int
) -> tuple[bool, bool, bool, bool]:
    more, enough = np.arange(size, left + 1, size), -math.log(design.alpha_in)
    if which == "alive":
        good = paired.log_evidence(0, hits, n - hits, -design.max_drop) >= enough
        ahead = paired.log_evidence(0, hits, n - hits + more, -design.max_drop) >= enough
        return bool(good), False, bool(ahead.any()), False
    limit = design.tau_pass if which == "gate" else design.max_false_positive
    good = eprocess.log_evidence_below(hits, n, limit, PRIOR) >= enough
    may_good = eprocess.log_evidence_below(hits, n + more, limit, PRIOR) >= enough
    bad = which == "gate" and eprocess.log_evidence_above(hits, n, design.tau_fail, PRIOR) >= enough
    may_bad = eprocess.log_evidence_above(hits + more, n + more, design.tau_fail, PRIOR) >= enough
    return bool(good), bool(bad), bool(may_good.any()), bool(may_bad.any())


SMALL = UpdateDesign(2, 12, 3, 12, 0.45, 0.55, 0.5, 0.4, 0.25, PRIOR, first=4)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("which", ["gate", "alive", "negative"])
def test_the_recursion_is_the_sum_over_all_paths(which: str, rate: float) -> None:
    is_gate = which == "gate"
    exact = getattr(SMALL, which)(rate)
    counted = by_enumeration(
        SMALL, rate, size=2 if is_gate else 3, most=12, first=4 if is_gate else 0, which=which
    )
    for name in ("shown", "against", "images"):
        assert getattr(exact, name) == pytest.approx(getattr(counted, name), abs=1e-12)


def test_images_of_an_update_are_those_of_its_tests() -> None:
    found = MICRO.outlook(0.01, 0.02)
    gate, alive = MICRO.gate(0.01), MICRO.alive(0.02)
    assert found.images == gate.images
    assert found.retained == pytest.approx(gate.shown * alive.images, abs=1e-3)
    assert found.clean == gate.shown * alive.shown
