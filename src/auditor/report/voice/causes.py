"""Why an audit is INCONCLUSIVE, and the way out of each cause."""

from __future__ import annotations

from collections.abc import Sequence

from auditor.report import Cause, CellResult, Control, Ledger, Outcome, Report
from auditor.report.words import (
    RUN_ENDED,
    control_title,
    gate_cells,
    is_drawn,
    level_of_fail,
    listed,
    was_come_to,
)

BY_IMAGES = ("negative", "positive", "assay", "alive")
"""Controls that more images may let pass."""

OF_THE_CHECKPOINT = {"vocabulary", "alive"}
"""Controls that are mended in the checkpoint."""

OF_THE_RUN = {"sham", "repeat", "earlier"}
"""Controls that are mended in a plugin, or by a run of its own. All others are mended in the policy."""

MEND = {
    "vocabulary": "give the checkpoint the base's tokenizer files",
    "text encoder": "add {use: base-text-encoder} to the policy's probes, or give it the base's text encoder",
    "autoencoder": "add {use: base-autoencoder} to the policy's probes, or give it the base's autoencoder",
    "potent": "give the probe more training steps or a larger learning rate",
    "sham": "mend the probe's plugin: without learning it must change nothing",
    "repeat": "mend the detector or plugin that says or draws something else the second time",
    "earlier": "audit in a new folder",
    "negative": "choose a detector that is right about images of other concepts",
    "positive": "choose a detector that sees the concept, or a base and prompts that show it",
    "assay": "retain concepts that the base draws well and the detector knows",
    "alive": "erase more gently: the model draws what is to be kept less well than the base",
}
"""What to do where a control will not pass, whatever is drawn."""

WAYS_OUT = {
    Cause.TOO_FEW_IMAGES: "a larger budget goes on in the same folder",
    Cause.CONTROL: "mend what the control names, then audit again",
    Cause.BLIND: "choose another detector, base or prompts, then audit in a new folder",
    Cause.BUDGET: "the same command goes on in the same folder, with more --minutes if they ran out",
    Cause.NOT_ONE_EVIDENCE: "audit again, so that all evidence is of one kind",
}
"""The way out of each cause, in half a sentence."""


def cause_of_control(control: Control) -> Cause:
    """The cause that a control stands for which did not pass."""
    sentence, value = control.sentence, control.value
    if control.name == "earlier":
        return Cause.NOT_ONE_EVIDENCE
    if not was_come_to(control):
        return Cause.BUDGET
    if control.name not in BY_IMAGES:
        return Cause.BLIND if sentence.startswith("Without a base") else Cause.CONTROL
    if control.name == "alive":
        if value is None:
            return Cause.BLIND
        return Cause.CONTROL if value >= control.limit else Cause.TOO_FEW_IMAGES
    if value is None or (value > control.limit if control.name == "negative" else value < control.limit):
        return Cause.BLIND
    return Cause.TOO_FEW_IMAGES


def cause_of_check(
    cell: CellResult, controls: Sequence[Control], alpha_fail: float, *, cut_off: bool
) -> Cause:
    """The cause of a deciding check that is undecided. ``alpha_fail``: the level at which one check alone
    proves FAIL."""
    if not is_drawn(cell):
        return Cause.BUDGET
    if cell.p_failed <= alpha_fail:  # above the limit, if the detector is right on that model state
        return next(
            (
                cause_of_control(control)
                for control in controls
                if (control.name, control.decides, control.arm, control.concept)
                == ("negative", "FAIL", cell.arm, cell.concept)
            ),
            Cause.BLIND,
        )
    return Cause.BUDGET if cut_off else Cause.TOO_FEW_IMAGES


def was_cut_off(ledger: Ledger) -> bool:
    """Did the run end before everything that is needed was drawn and scored?"""
    return not ledger.whole or any(text.startswith(RUN_ENDED) for text in ledger.skipped_because)


def cause_of(report: Report, cell: CellResult) -> Cause:
    """:func:`cause_of_check` of one check of a report."""
    return cause_of_check(cell, report.controls, level_of_fail(report), cut_off=was_cut_off(report.ledger))


def causes(report: Report) -> tuple[Cause, ...]:
    """Every cause of an INCONCLUSIVE report, once: first what no image mends. Empty for other verdicts."""
    if report.verdict.outcome is not Outcome.INCONCLUSIVE:
        return ()
    found = set(report.verdict.causes)
    if not found:  # an older report
        found |= {cause_of_control(each) for each in missing_controls(report)}
        found |= {cause_of(report, cell) for cell in gate_cells(report) if cell.state == "undecided"}
    return tuple(cause for cause in Cause if cause in found) or (Cause.NOT_ONE_EVIDENCE,)


def missing_controls(report: Report) -> list[Control]:
    """The controls that a PASS needs and that did not pass."""
    return [each for each in report.controls if each.passed is False and each.decides == "PASS"]


def mended(control: str, arms: Sequence[str]) -> str:
    """What to mend where a control will not pass on these model states."""
    on = listed(list(dict.fromkeys(arms)))
    return f"Control '{control_title(control)}' on {on} did not pass, whatever is drawn: {MEND[control]}."
