"""The page's section over ordinary updates: where each stands in the picture, and what its row says."""

from __future__ import annotations

import math
from typing import Any

from auditor.report import Population, Report, Share, UpdateRate, UpdateResult
from auditor.report.voice import STATES, kinds, numbers_of, what_was_shown
from auditor.report.voice.over_updates import kind_of
from auditor.report.words import NOT_DRAWN, certainty, names, percent
from auditor.report.words import alpha as level_of

UNFOLDED = 12
"""A table of more updates is folded until it is asked for."""
_LEFT, _WIDTH = 14.0, 84.0  # of the picture's width, in hundredths: what is left of the axis, and the axis
_BOTTOM, _HEIGHT = 92.0, 84.0  # pixels from the top to a rate of 0, and from there to a rate of 1
_BELOW = 110.0  # where no rate is known
_MOST_TICKS = 7
_HEIGHTS = (0.0, 0.25, 1.0)  # rates that are written at the axis


def section(report: Report) -> dict[str, Any] | None:
    """What the page shows of the population; None where the policy has none. Rates are drawn by their square
    root, so that the limits lie apart."""
    found = report.population
    if found is None:
        return None
    last = max([1, *(each.number for each in found.updates)])
    low, high = found.bounds
    states = [each.state for each in found.updates]
    return {
        "told": what_was_shown(report),
        "numbers": numbers_of(report, found),
        "state": found.state,
        "sure": certainty(level_of(report)),
        "share": None if low is None or high is None else {"lower": 100 * low, "upper": 100 * high},
        "limit": 100 * found.share,
        "unclean": 100 * found.unclean / found.read if found.read else 0.0,
        "concepts": [_concept(found, share) for share in found.shares],
        "kinds": [
            {
                "said": kind.said,
                "marks": [_mark(each, last) for each in kind.updates],
                "highest": max((_rate(each) or 0 for each in kind.updates), default=0),
            }
            for kind in kinds(found)
        ],
        "limits": [
            ("pass", found.tau_pass, _y(found.tau_pass)),
            ("fail", found.tau_fail, _y(found.tau_fail)),
        ],
        "heights": [(percent(rate), _y(rate)) for rate in _HEIGHTS],
        "ticks": [(number, _x(number, last)) for number in _ticks(last)],
        "without_rate": any(_rate(each) is None for each in found.updates),
        "legend": [(state, word, states.count(state)) for state, word in STATES.items() if state in states],
        "rows": [_row(each) for each in found.updates],
        "folded": len(found.updates) > UNFOLDED,
    }


def _concept(found: Population, share: Share) -> dict[str, Any]:
    known = found.read > 0
    return {
        "concept": share.concept or "all pairs of an update and a concept",
        "state": "held" if share.held else "failed" if found.failed else "undecided",
        "unclean": f"{share.unclean} of {found.read}" if known else "none was read",
        "upper": share.upper if known else None,
        "mean": (share.mean_lower, share.mean_upper) if known and share.concept else (None, None),
    }


def _rate(update: UpdateResult) -> float | None:
    """The highest rate of one update's concepts; None where there is no image."""
    return max((each.rate for each in update.rates if each.rate is not None), default=None)


def seen_in(rate: UpdateRate) -> str:
    """``Borin Talvek 3 of 65``, and how many of them are missing."""
    missing = f", {rate.missing} missing" if rate.missing else ""
    counted = f"{rate.hits} of {rate.images}{missing}" if rate.images else NOT_DRAWN
    return f"{rate.concept} {counted}"


def drawn_for(update: UpdateResult) -> str:
    """The options that were drawn for an update: ``learning_rate 0.001``."""
    return ", ".join(f"{name} {value}" for name, value in update.drawn.items())


def kept_in(update: UpdateResult) -> str:
    """``4 of 50 lost``; of a model that shows more than the base it is fewer than none."""
    return f"{update.lost} of {update.retained} lost" if update.retained else NOT_DRAWN


def _mark(update: UpdateResult, last: int) -> dict[str, Any]:
    rate = _rate(update)
    what = [f"update {update.number}: {update.member}", *kind_of(update)[1:], drawn_for(update)]
    told = [", ".join(filter(None, what)), *map(seen_in, update.rates), STATES[update.state], update.why]
    return {
        "x": _x(update.number, last),
        "y": _BELOW if rate is None else _y(rate),
        "state": update.state,
        "title": "; ".join(filter(None, told)),
    }


def _row(update: UpdateResult) -> dict[str, Any]:
    return {
        "one": update,
        "state": STATES[update.state],
        "drawn": drawn_for(update),
        "trained_on": names(update.trained_on),
        "seen": "; ".join(seen_in(each) for each in update.rates),
        "kept": kept_in(update),
    }


def _x(number: int, last: int) -> float:
    return round(_LEFT + _WIDTH * (number - 0.5) / last, 2)


def _y(rate: float) -> float:
    return round(_BOTTOM - _HEIGHT * math.sqrt(min(1.0, max(0.0, rate))), 1)


def _ticks(last: int) -> list[int]:
    """Numbers of updates to write below the picture: the first, and round ones."""
    steps = (1, 2, 5, 10, 20, 50, 100, 200)
    step = next((each for each in steps if last <= each * _MOST_TICKS), last)
    return sorted({1, *range(step, last + 1, step)})
