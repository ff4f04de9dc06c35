"""What was found, in sentences with their numbers: one check, and the strongest of all as a headline.

Where a bound decided, the bound stands in the sentence: a rate alone never contradicts the verdict.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from auditor.report import Cause, CellResult, Control, Outcome, Report, State
from auditor.report.voice.causes import cause_of, cause_of_control, causes, missing_controls
from auditor.report.voice.over_updates import held_reason, story
from auditor.report.words import (
    MEANINGS,
    alpha,
    bounds,
    certainty,
    control_title,
    count,
    gate_cells,
    is_base,
    is_drawn,
    level_of_fail,
    listed,
    percent,
    rate_of,
    thresholds,
)

ERASED = "erased"


def when(arm: str) -> str:
    """A model state in a sentence."""
    if arm == ERASED:
        return "right after erasure"
    if is_base(arm):
        return (
            "in the base" if arm == "base" else f"in the base, drawn and asked as in {arm.partition('.')[2]}"
        )
    return f"after {arm}"


def seen(cell: CellResult) -> str:
    """``11 of 70 images (16%)``; where images are missing, the share of those that are there."""
    share = percent(cell.rate)
    if cell.missing:
        return f"{cell.hits} of {cell.images} images, {cell.missing} of them missing ({share} of the rest)"
    return f"{cell.hits} of {cell.images} images ({share})"


def _none_in(cells: Sequence[CellResult]) -> str:
    """How many images nothing was seen in, and how many of them there are not."""
    missing = sum(each.missing for each in cells)
    told = f", {missing} of which are missing" if missing else ""
    return f"{sum(each.images for each in cells)} images{told}"


def against_the_limit(report: Report, cell: CellResult) -> str:
    """The bound of a check that decides, and the limit that it is held against, in half a sentence."""
    (low, high), (lower, upper), sure = thresholds(report), bounds(cell), certainty(alpha(report))
    least = f"with {sure} certainty that is at least {percent(lower, 1)}"
    most = f"with {sure} certainty that is at most {percent(upper, 1)}"
    if cell.state is State.FAILED:
        return f"{least}, and the limit is {percent(high, 1)}"
    if cell.state is State.HELD:
        return f"{most}, and the limit is {percent(low, 1)}"
    rate = rate_of(cell)
    if lower is not None and lower > high:
        checks = len(gate_cells(report))
        but = "the detector is not shown to be right on that model state"
        if cell.p_failed > level_of_fail(report):
            but = f"over all {checks} checks together that is not proven yet"
        return f"{least}, above the limit of {percent(high, 1)}, but {but}"
    if rate > high:
        return f"{least}, and FAIL needs more than {percent(high, 1)}"
    if rate < low:
        return f"{most}, and PASS needs less than {percent(low, 1)}"
    return (
        f"{least}, and at most {percent(upper, 1)}; PASS needs less than {percent(low, 1)}, FAIL more than "
        f"{percent(high, 1)}"
    )


def said_of(report: Report, cell: CellResult) -> str:
    """One check in a sentence: measured, bound, limit."""
    if not is_drawn(cell):
        return f"{cell.surface} {when(cell.arm)}: {count(cell)}."
    told = against_the_limit(report, cell)
    return f"{cell.surface} {when(cell.arm)}: seen in {seen(cell)}; {told}."


def strongest(report: Report) -> CellResult | None:
    """The deciding check that a headline is about: of those that the verdict names the one with the highest
    rate. None where no check has a whole round of images."""
    drawn = [cell for cell in gate_cells(report) if is_drawn(cell)]
    if report.verdict.outcome is Outcome.FAIL:
        failed = [cell for cell in drawn if cell.state is State.FAILED]
        first = [cell for cell in failed if cell.arm == ERASED]
        drawn = (first if report.verdict.origin == "not erased" else failed) or failed or drawn
    return max(drawn, key=lambda cell: (rate_of(cell), bounds(cell)[1] or 0), default=None)


def headline(report: Report) -> str:
    """The strongest thing that was found, in one sentence with its numbers."""
    worst, outcome, over = strongest(report), report.verdict.outcome, report.population
    if outcome is Outcome.FAIL and over is not None and over.failed:
        proven = any(cell.state is State.FAILED for cell in gate_cells(report))
        if not proven or report.verdict.origin == "came back":
            return story(report, over)
    if outcome is Outcome.ERROR:
        errors = report.ledger.errors or report.verdict.reasons
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        return f"Something that was planned broke: {errors[0].rstrip('.')}{more}. This is no PASS."
    if outcome is Outcome.PASS:
        if over is None:
            return f"{MEANINGS[outcome]} {_highest(report, worst)}".strip()
        held = held_reason(over, alpha(report))
        return " ".join(filter(None, ("Held.", held, _highest(report, worst))))
    if worst is None:
        return (
            "An erased concept is there."
            if outcome is Outcome.FAIL
            else f"Nothing was found yet: {_why_not(report, None)}. This is no PASS."
        )
    if outcome is Outcome.FAIL:
        return f"{_story(report, worst)}; {against_the_limit(report, worst)}."
    return f"{_found(report, worst)}; but {_why_not(report, worst)}. This is no PASS."


def _highest(report: Report, worst: CellResult | None) -> str:
    if worst is None:
        return ""
    told, rates = against_the_limit(report, worst), len(gate_cells(report))
    return f"The highest of {rates} rates is {worst.surface} {when(worst.arm)}: {seen(worst)}; {told}."


def _before(report: Report, cell: CellResult) -> CellResult | None:
    """The same concept right after erasure."""
    own = (each for each in gate_cells(report) if each.arm == ERASED and each.surface == cell.surface)
    found = next(own, None)
    return None if found is None or found is cell or not is_drawn(found) else found


def _story(report: Report, cell: CellResult) -> str:
    """A proven check, and how it was right after erasure."""
    if report.policy["claim"] == "detector":
        return f"The detector says {cell.surface} {when(cell.arm)} in {seen(cell)}"
    before = _before(report, cell)
    earlier = "" if before is None else f", {before.hits} of {before.images} right after erasure"
    if cell.arm == ERASED:
        return f"Not erased: {cell.surface} is drawn right after erasure, in {seen(cell)}"
    if report.verdict.origin == "came back":
        return f"Came back: {cell.surface} is drawn {when(cell.arm)} in {seen(cell)}{earlier}"
    return f"Present: {cell.surface} is drawn {when(cell.arm)} in {seen(cell)}{earlier}"


def _found(report: Report, cell: CellResult) -> str:
    """What was seen, where nothing is proven."""
    cells = [each for each in gate_cells(report) if is_drawn(each)]
    checks = len(gate_cells(report))
    if all(each.state is State.HELD for each in gate_cells(report)):
        if not cell.hits:
            return f"All {checks} checks held: no erased concept was seen in {_none_in(cells)}"
        return f"All {checks} checks held, the highest being {cell.surface} {when(cell.arm)} in {seen(cell)}"
    if not cell.hits:
        of = f"in {len(cells)} of {checks} checks"
        return f"No erased concept was seen in {_none_in(cells)}, {of}"
    before = _before(report, cell)
    earlier = "" if before is None else f", {before.hits} of {before.images} right after erasure"
    rate = rate_of(cell)
    less = before is not None and rate_of(before) < rate
    back = any(
        each.arm == cell.arm and each.concept == cell.surface and (each.lower or 0) > 0
        for each in report.resurgence
    )
    came = less and (back or rate >= thresholds(report)[0])
    return f"{cell.surface} {'came back' if came else 'was seen'} {when(cell.arm)} in {seen(cell)}{earlier}"


def _why_not(report: Report, worst: CellResult | None) -> str:
    """Why that is neither PASS nor FAIL, in half a sentence: of what was seen most, then of the cause that
    must be mended first."""
    first, found = next(iter(causes(report)), Cause.TOO_FEW_IMAGES), list[str]()
    if worst is not None and worst.state is State.UNDECIDED and worst.hits:
        (low, high), rate = thresholds(report), rate_of(worst)
        own = cause_of(report, worst)
        if own is Cause.BLIND:
            found.append("the detector may be wrong on that model state, so it proves nothing")
        elif rate > high:
            found.append(f"too few images to prove it above the limit of {percent(high, 1)}")
        elif rate >= low:
            need = f"PASS (below {percent(low, 1)}) and FAIL (above {percent(high, 1)})"
            found.append(f"that lies between what {need} need")
        if found and own is first:
            return found[0]
    return " and ".join([*found, _of_cause(report, first)])


def _of_cause(report: Report, cause: Cause) -> str:
    """A cause in half a sentence, with the controls or checks that it is about."""
    cells = gate_cells(report)
    named = _named([each for each in missing_controls(report) if cause_of_control(each) is cause])
    if cause is Cause.NOT_ONE_EVIDENCE:
        told = zip(report.verdict.causes, report.verdict.reasons, strict=False)
        own = next((text for each, text in told if each is cause), "")
        return "no verdict may rest on it" + (f" ({re.split(r'[.:;] ', own.rstrip('.'))[0]})" if own else "")
    if cause is Cause.BUDGET:
        begun = sum(is_drawn(cell) for cell in cells)
        return f"the run ended before everything was drawn ({begun} of {len(cells)} checks were begun)"
    if cause is Cause.BLIND:
        return "the base or the detector cannot show it" + (f": {named} did not pass" if named else "")
    if cause is Cause.CONTROL:
        return f"{named or 'a control'} did not pass"
    unsure = [cell for cell in cells if cell.state is not State.HELD]
    over = report.population
    if over is not None and not over.held and not unsure:
        return (
            f"the share of ordinary updates that bring one back is not decided ({over.unclean} of "
            f"{over.read} read were not clean, {over.back} brought one back; the limit is "
            f"{percent(over.share)})"
        )
    if not unsure:
        return f"too few images to show {named or 'what a PASS needs'}"
    limit = percent(thresholds(report)[0], 1)
    which = "every rate" if len(unsure) == len(cells) else f"{len(unsure)} of {len(cells)} rates"
    return f"too few images to prove {which} below {limit}"


def _named(controls: Sequence[Control]) -> str:
    """Controls by name, and on which model states."""
    arms: dict[str, dict[str, None]] = {}
    for each in controls:
        arms.setdefault(control_title(each.name), {})[each.arm] = None
    return listed([f"control '{name}' on {listed(list(on), 3)}" for name, on in arms.items()], 3)
