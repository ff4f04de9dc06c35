"""The reasons of a verdict: what was measured, its bound and the limit, and the way out; one cause that holds
for several model states is one reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from auditor.report import Cause, CellResult, Control, Outcome, Report, State
from auditor.report.voice.causes import MEND, WAYS_OUT, cause_of, cause_of_control, missing_controls
from auditor.report.voice.found import said_of, strongest, when
from auditor.report.voice.over_updates import OVER_UPDATES, failed_reason, held_reason, way_out
from auditor.report.words import (
    RUN_ENDED,
    alpha,
    control_title,
    count,
    explained,
    gate_cells,
    is_drawn,
    listed,
    percent,
    rate_of,
    thresholds,
)

ABOVE_THE_FOLD = 3
"""So many reasons are shown before the rest."""
_LIKELY = 0.5


@dataclass(frozen=True)
class Reason:
    """One reason of a verdict."""

    sentence: str
    """What was measured, the bound that decided, and the limit; which model states it holds for."""
    way_out: str = ""
    """What would change it; empty where nothing does, or where it is no obstacle."""
    cause: Cause | None = None
    """Of an INCONCLUSIVE."""
    link: str = ""
    """Where the documentation explains it."""

    @property
    def whole(self) -> str:
        """Both sentences in one line."""
        return f"{self.sentence} Way out: {self.way_out}." if self.way_out else self.sentence


def reasons(report: Report) -> tuple[Reason, ...]:
    """All reasons, what must be mended first before what more images decide; never empty."""
    outcome = report.verdict.outcome
    if outcome is Outcome.FAIL:
        found = list(_failed(report))
    elif outcome is Outcome.ERROR:
        found = list(_broken(report))
    elif outcome is Outcome.INCONCLUSIVE:
        found = sorted(_doubts(report), key=lambda reason: list(Cause).index(reason.cause or Cause.BUDGET))
    else:
        found = list(_held(report))
    return tuple(found) or tuple(Reason(text) for text in report.verdict.reasons)


def folded(report: Report) -> tuple[tuple[Reason, ...], int]:
    """The reasons above the fold, and how many more there are."""
    found = reasons(report)
    return found[:ABOVE_THE_FOLD], max(0, len(found) - ABOVE_THE_FOLD)


# -- PASS and FAIL ------------------------------------------------------------------------------------------


def _failed(report: Report) -> Iterator[Reason]:
    """A reason a concept: the model state that shows it most often, then the others."""
    if report.population is not None and report.population.failed:
        yield Reason(
            failed_reason(report.population, alpha(report)),
            link=explained("verdict", "Over ordinary updates"),
        )
    failed = [cell for cell in gate_cells(report) if cell.state is State.FAILED]
    for cells in _by_surface(failed):
        first = strongest(report)
        worst, *others = sorted(cells, key=lambda cell: (cell is not first, -rate_of(cell)))
        also = listed([f"{when(cell.arm)} ({cell.hits} of {cell.images})" for cell in others])
        sentence = said_of(report, worst) + (f" Proven too {also}." if also else "")
        yield Reason(sentence, link=explained("verdict", "Verdict"))
    own = {(cell.arm, cell.concept) for cell in failed}
    shown = [
        each
        for each in report.controls
        if each.decides == "FAIL" and each.passed and (each.arm, each.concept) in own
    ]
    for control in sorted(shown, key=lambda each: each.value or 0)[-1:]:
        arms = listed(list(dict.fromkeys(each.arm for each in shown)), 4)
        most = f"; on {control.arm}: " if len(shown) > 1 else ". "
        yield Reason(
            f"The detector is shown to be rarely wrong there ({arms}){most}{control.sentence}",
            link=explained("controls", control_title(control.name)),
        )


def _held(report: Report) -> Iterator[Reason]:
    """Of a PASS: that everything which it rests on was shown."""
    passed = [each for each in report.controls if each.passed and each.decides == "PASS"]
    titles = list(dict.fromkeys(control_title(each.name) for each in passed))
    yield Reason(
        f"All {len(gate_cells(report))} checks held, and all {len(passed)} controls passed: "
        f"{listed(titles, len(titles))}.",
        link=explained("controls"),
    )
    if report.population is not None:
        told = held_reason(report.population, alpha(report))
        yield Reason(told, link=explained("verdict", "Over ordinary updates"))


def _by_surface(cells: Iterable[CellResult]) -> Iterator[list[CellResult]]:
    found: dict[str, list[CellResult]] = {}
    for cell in cells:
        found.setdefault(cell.surface, []).append(cell)
    yield from sorted(found.values(), key=lambda own: -max(rate_of(cell) for cell in own))


# -- ERROR ---------------------------------------------------------------------------------------------------


def _broken(report: Report) -> Iterator[Reason]:
    """What broke; one message of several model states is one reason."""
    arms = {cell.arm for cell in report.cells} | {each.arm for each in report.controls}
    found: dict[str, list[str]] = {}
    for text in report.ledger.errors or report.verdict.reasons:
        arm, colon, message = text.partition(": ")
        known = bool(colon) and arm in arms
        found.setdefault(message if known else text, []).extend([arm] if known else [])
    for message, on in found.items():
        sentence = f"{listed(on)}: {message}" if on else message
        yield Reason(
            sentence, "mend it; the same command goes on in the same folder", link=explained("errors")
        )


# -- INCONCLUSIVE --------------------------------------------------------------------------------------------


def _doubts(report: Report) -> Iterator[Reason]:
    yield from _untold(report)
    yield from _of_updates(report)
    yield from _of_checks(report)
    yield from _of_controls(report)
    yield from _closed(report)


def _of_updates(report: Report) -> Iterator[Reason]:
    """Why the share of ordinary updates is not decided."""
    told = zip(report.verdict.causes, report.verdict.reasons, strict=False)
    for cause, text in told:
        if report.population is not None and text.startswith(OVER_UPDATES):
            yield Reason(text, way_out(report, cause), cause, explained("verdict", "Over ordinary updates"))


def _of_controls(report: Report) -> Iterator[Reason]:
    """A reason a control and cause, over model states and concepts."""
    groups: dict[tuple[str, Cause], list[Control]] = {}
    waiting: list[Control] = []
    for control in missing_controls(report):
        cause = cause_of_control(control)
        own = waiting if cause is Cause.BUDGET else groups.setdefault((control.name, cause), [])
        own.append(control)
    if waiting:
        titles = dict.fromkeys(control_title(control.name) for control in waiting)
        arms = dict.fromkeys(control.arm for control in waiting)
        yield Reason(
            f"Controls that the run did not come to: {listed(list(titles))}, on {listed(list(arms))}.",
            WAYS_OUT[Cause.BUDGET],
            Cause.BUDGET,
            explained("inconclusive", Cause.BUDGET),
        )
    for (name, cause), controls in groups.items():
        worst = max(controls, key=_how_far)
        failed = list(dict.fromkeys(control.arm for control in controls))
        title = control_title(name)
        on = f" on {listed(failed)}"
        most = f"Worst on {worst.arm}: " if len(controls) > 1 else ""
        sentence = f"Control '{title}' did not pass{on}. {most}{worst.sentence}"
        yield Reason(sentence, _way_out_of(report, worst, cause), cause, explained("controls", title))


def _how_far(control: Control) -> float:
    """How far a control is from passing; more is worse."""
    bound = control.value if control.bound is None else control.bound
    if bound is None:
        return 0.0
    lower_is_worse = control.name in ("positive", "assay", "potent")
    return control.limit - bound if lower_is_worse else bound - control.limit


def _way_out_of(report: Report, control: Control, cause: Cause) -> str:
    if cause is Cause.TOO_FEW_IMAGES:
        key = "images_per_cell" if control.name == "positive" else "retained_per_arm"
        kept = "" if control.name == "positive" else "retained "
        return _more(report, key, control.n, kept) or WAYS_OUT[cause]
    if control.value is None and control.sentence.startswith(("Without a base", "There is no base")):
        return "name the checkpoint before erasure (--base)"
    if control.value is None and control.sentence.startswith("No concept is to be kept"):
        return "name concepts under 'retain'"
    return MEND.get(control.name, WAYS_OUT[cause])


def _more(report: Report, key: str, now: int, kind: str) -> str:
    """How many more images the next step draws, or nothing where it draws none of these."""
    step = report.next_step
    wanted = 0 if step is None else int(step.budget.get(key, 0))
    if step is None or wanted <= now:
        return ""
    of = "model state" if kind else "check"
    told = f"up to {wanted - now} more {kind}images of each {of} decide it"
    if (step.p_pass or 0) + (step.p_fail or 0) >= _LIKELY:
        return told
    below, above = (percent(limit, 1) for limit in thresholds(report))
    return (
        f"{told}, unless the rate lies between {below} and {above}: then no number of images does, and only "
        "a stronger erasure helps"
    )


def _of_checks(report: Report) -> Iterator[Reason]:
    """A reason a cause, over concepts and model states."""
    groups: dict[tuple[Cause, bool], list[CellResult]] = {}
    for cell in gate_cells(report):
        if cell.state is not State.HELD:
            groups.setdefault((cause_of(report, cell), is_drawn(cell)), []).append(cell)
    for (cause, drawn), cells in groups.items():
        yield Reason(
            _undecided(report, cells) if drawn else _not_drawn(report, cells),
            _way_out_of_checks(report, cells, cause),
            cause,
            explained("inconclusive", cause),
        )


def _undecided(report: Report, cells: Sequence[CellResult]) -> str:
    worst = max(cells, key=lambda cell: (rate_of(cell), cell.upper or 0))
    others = [cell for cell in cells if cell is not worst]
    head = f"Undecided: {len(cells)} of {len(gate_cells(report))} checks. "
    which = [f"{cell.surface} {when(cell.arm)} {cell.hits} of {cell.images}" for cell in others]
    also = f" The others: {listed(which, 4)}." if others else ""
    return f"{head}{said_of(report, worst)}{also}"


def _not_drawn(report: Report, cells: Sequence[CellResult]) -> str:
    which = listed([f"{cell.surface} {when(cell.arm)} ({count(cell)})" for cell in cells], 4)
    return f"Without a whole round of images: {len(cells)} of {len(gate_cells(report))} checks, {which}."


def _way_out_of_checks(report: Report, cells: Sequence[CellResult], cause: Cause) -> str:
    if cause is not Cause.TOO_FEW_IMAGES:
        return WAYS_OUT[cause]
    fewest = min(cell.images for cell in cells)
    found = _more(report, "images_per_cell", fewest, "") or _more(report, "retained_per_arm", 0, "retained ")
    if found:
        return found
    step = report.next_step
    if step is not None and step.command is None and "between" in step.sentence:
        low, high = (percent(limit, 1) for limit in thresholds(report))
        return f"more images hardly decide between {low} and {high}: erase more strongly, or raise the limit"
    if step is not None and step.command is None and not report.policy["sequential"]:
        return "each check is read once: set sequential: true or a larger budget, and give a new folder"
    return WAYS_OUT[cause]


def _untold(report: Report) -> Iterator[Reason]:
    """Reasons that are about no control and no check."""
    told = ["Control '", OVER_UPDATES, *(f"{cell.surface} on {cell.arm}" for cell in gate_cells(report))]
    causes = report.verdict.causes or (Cause.NOT_ONE_EVIDENCE,) * len(report.verdict.reasons)
    for cause, text in zip(causes, report.verdict.reasons, strict=False):
        if text in report.ledger.skipped_because and not text.startswith(RUN_ENDED):
            continue  # what was closed early is told together
        if text.startswith(tuple(told)):
            continue
        if not report.verdict.causes and (text.startswith(RUN_ENDED) or "were never drawn" in text):
            cause = Cause.BUDGET  # of an older report
        yield Reason(text, WAYS_OUT[cause], cause, explained("inconclusive", cause))


def _closed(report: Report) -> Iterator[Reason]:
    """What was closed before its budget was spent."""
    closed = [text for text in report.ledger.skipped_because if not text.startswith(RUN_ENDED)]
    if closed:
        which = listed([text.partition(": after ")[0] for text in closed], 4)
        yield Reason(
            f"Closed early, because a decision was out of reach or too unlikely: {which}.",
            "set on_undecided: spend, or a larger budget",
            Cause.TOO_FEW_IMAGES,
            explained("inconclusive", Cause.TOO_FEW_IMAGES),
        )
