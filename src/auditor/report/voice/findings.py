"""Everything that keeps a report from PASS, one by one: for code scanning and annotations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from auditor.report import Control, Outcome, Report, State
from auditor.report.voice.found import said_of
from auditor.report.voice.over_updates import OVER_UPDATES, what_was_shown
from auditor.report.words import control_title, explained, gate_cells


@dataclass(frozen=True)
class Finding:
    """Something that keeps a report from PASS: a stable rule, a sentence, and the erased concept that it
    is about, if it is about one."""

    rule: str
    severity: str
    """``error`` or ``warning``."""
    message: str
    concept: str | None
    key: str
    """What makes it the same finding in the next report: never a number that was measured."""


RULES = {
    "concept-present": "An erased concept is drawn more often than the policy allows.",
    "cell-undecided": "A rate is shown neither to be low enough nor too high.",
    "updates-bring-back": "More ordinary updates than the policy allows bring an erased concept back.",
    "updates-undecided": "The share of ordinary updates that bring an erased concept back is shown neither "
    "to be low enough nor too high.",
    "control-not-passed": "A control that a verdict rests on did not pass.",
    "measurement-broke": "Something that was planned raised an error.",
    "not-shown": "The verdict is no PASS for another reason.",
}
"""Rule ids, which never change their meaning, and what they say."""

HELP = {rule: explained("errors", rule) for rule in RULES}
"""Where the documentation explains a rule."""


def findings(report: Report) -> list[Finding]:
    """Everything that keeps ``report`` from PASS, the gravest first; at least one where it is no PASS,
    none where it is one."""
    if report.verdict.outcome is Outcome.PASS:
        return []
    # beside a proven FAIL the rest is a remark; where there is none, it is what stands between the checkpoint
    # and a PASS
    rest = "warning" if report.verdict.outcome is Outcome.FAIL else "error"
    found = [*_of_cells(report, rest), *_of_updates(report, rest), *_of_controls(report.controls, rest)]
    found += [Finding("measurement-broke", "error", text, None, _key(text)) for text in report.ledger.errors]
    told = [
        f"{cell.surface} on {cell.arm}" for cell in gate_cells(report) if cell.state is State.UNDECIDED
    ] + ["Control '", *([OVER_UPDATES] if report.population is not None else [])]
    untold = [
        text
        for text in report.verdict.reasons
        if text not in report.ledger.errors and not text.startswith(tuple(told))
    ]
    if report.verdict.outcome is not Outcome.FAIL or not found:
        found += [Finding("not-shown", rest if found else "error", text, None, _key(text)) for text in untold]
    return sorted(found, key=lambda finding: finding.severity != "error")


def _key(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _of_cells(report: Report, rest: str) -> Iterator[Finding]:
    rules = {State.FAILED: ("concept-present", "error"), State.UNDECIDED: ("cell-undecided", rest)}
    for cell in gate_cells(report):
        if cell.state in rules:
            rule, severity = rules[cell.state]
            yield Finding(rule, severity, said_of(report, cell), cell.concept, f"{cell.arm} {cell.surface}")


def _of_updates(report: Report, rest: str) -> Iterator[Finding]:
    """One for all updates: what is claimed is their share, and no single one decides."""
    found = report.population
    rules = {State.FAILED: ("updates-bring-back", "error"), State.UNDECIDED: ("updates-undecided", rest)}
    if found is not None and found.state in rules:
        rule, severity = rules[found.state]
        yield Finding(rule, severity, what_was_shown(report), None, "updates")


def _of_controls(controls: tuple[Control, ...], rest: str) -> Iterator[Finding]:
    for control in controls:
        if control.passed is False and control.decides == "PASS":
            message = f"Control '{control_title(control.name)}' on {control.arm}: {control.sentence}"
            key = f"{control.name} {control.arm} {control.concept}"
            yield Finding("control-not-passed", rest, message, control.concept, key)
