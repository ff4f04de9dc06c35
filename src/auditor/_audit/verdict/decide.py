"""The verdict and its reasons: FAIL, ERROR, PASS or INCONCLUSIVE, each in sentences that name cell,
numbers and limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from auditor._audit.cells import ERASED, Role
from auditor._audit.evidence.counts import Device
from auditor._audit.evidence.sequential_tests import Evidence
from auditor._audit.plan import Plan
from auditor._audit.verdict import over_updates
from auditor._audit.verdict.facts import Facts
from auditor._stats import binomial, eprocess
from auditor.policy import Policy
from auditor.report import Cause, CellResult, Control, Ledger, Outcome, Population, Replay, State, Verdict
from auditor.report.voice.causes import cause_of_check, cause_of_control, was_cut_off
from auditor.report.voice.over_updates import failed_reason, held_reason
from auditor.report.words import RUN_ENDED, control_title, count, is_drawn, percent

_MORE = 4000  # images that are looked ahead to say what is missing


def decide(
    facts: Facts,
    controls: Sequence[Control],
    cells: Sequence[CellResult],
    ledger: Ledger,
    population: Population | None = None,
    replay: Replay | None = None,
    unseen: int = 0,
    devices: Sequence[Device] = (),
) -> Verdict:
    """FAIL if proven; else ERROR if something broke; else PASS if everything held; else INCONCLUSIVE.

    ``unseen`` images are of earlier processes, and the last one did not look at them again: no PASS rests on
    them. Nor does one on images of several kinds of ``devices``.
    """
    plan, evidence = facts.plan, facts.evidence
    gate = [cell for cell in cells if cell.role == Role.GATE]
    failed = [cell for cell in gate if cell.state is State.FAILED]
    if failed or (population is not None and population.failed):
        return _fail(plan.policy, gate, failed, population)
    if ledger.errors:
        return Verdict(outcome=Outcome.ERROR, reasons=ledger.errors)
    level, cut_off = evidence.alpha_fail, was_cut_off(ledger)
    doubts = [
        *(
            (cause_of_control(c), f"Control '{control_title(c.name)}' on {c.arm} did not pass: {c.sentence}")
            for c in controls
            if c.decides == "PASS" and c.passed is False
        ),
        *(
            (cause_of_check(cell, controls, level, cut_off=cut_off), _doubt(plan, evidence, cell))
            for cell in gate
            if cell.state is not State.HELD
        ),
    ]

    def doubt(cause: Cause, sentence: str) -> None:
        doubts.append((cause, sentence))

    if population is not None and (not population.held or over_updates.is_short(facts)):
        doubt(*over_updates.doubt(facts, population))
    if len(gate) < len(plan.gate_cells) or not gate:
        doubt(
            Cause.BUDGET,
            f"{len(gate)} of {len(plan.gate_cells)} planned checks were made: nothing else can be said of "
            "the rest.",
        )
    if plan.policy.is_comparison:
        doubt(
            Cause.NOT_ONE_EVIDENCE,
            "A comparison run: its image seeds are in the policy, so anybody could have known them before.",
        )
    if len(devices) > 1:
        kinds = " and ".join(f"{device} in {precision}" for device, precision in devices)
        doubt(
            Cause.NOT_ONE_EVIDENCE,
            f"Images were drawn on {kinds}, which differ in their last bits: controls compare images of one "
            "kind of device alone. Audit again in a new folder on one of them.",
        )
    if not ledger.whole:
        doubt(
            Cause.BUDGET,
            f"{ledger.not_drawn} wanted images were never drawn, and {ledger.unscored} were drawn and not "
            "scored.",
        )
    if replay is not None and not replay.succeeded:
        doubt(Cause.NOT_ONE_EVIDENCE, f"The run does not replay. {replay.sentence}")
    for text in ledger.skipped_because if doubts else ():
        doubt(Cause.BUDGET if text.startswith(RUN_ENDED) else Cause.TOO_FEW_IMAGES, text)
    if unseen and not doubts:
        doubt(
            Cause.NOT_ONE_EVIDENCE,
            f"{unseen} images are of earlier processes and were not looked at again; run the same audit once "
            "more, on the kind of device that drew them.",
        )
    if doubts:
        causes, reasons = zip(*doubts, strict=True)
        return Verdict(outcome=Outcome.INCONCLUSIVE, reasons=reasons, causes=causes)
    worst = max(gate, key=lambda cell: cell.upper or 0)
    reason = (
        f"All {len(gate)} checks held: the highest is {worst.surface} on {worst.arm} with {worst.hits} of "
        f"{worst.images} images detected (upper bound {worst.upper:.1%}, limit "
        f"{plan.policy.thresholds[0]:.1%}), and every control passed."
    )
    more = () if population is None else (held_reason(population, plan.policy.limits.alpha),)
    return Verdict(outcome=Outcome.PASS, reasons=(reason, *more))


def _fail(
    policy: Policy,
    gate: Sequence[CellResult],
    failed: Sequence[CellResult],
    population: Population | None,
) -> Verdict:
    over = (
        ()
        if population is None or not population.failed
        else (failed_reason(population, policy.limits.alpha),)
    )
    if policy.claim == "detector":  # then nothing is said of what the images show
        return Verdict(
            outcome=Outcome.FAIL,
            reasons=tuple(
                f"The detector says {cell.surface} on {cell.arm} in {cell.hits} of {cell.images} images "
                f"(lower bound {cell.lower:.1%}, limit {policy.thresholds[1]:.1%})."
                for cell in sorted(failed, key=lambda cell: cell.q or 0)
            )
            + over,
        )
    erased = {cell.surface: cell for cell in gate if cell.arm == ERASED}
    reasons, origins = [], set()
    for cell in sorted(failed, key=lambda cell: cell.q or 0):
        before = erased.get(cell.surface)
        if cell.arm == ERASED:
            origins.add("not erased")
            story = "was not erased"
        elif before is None:
            origins.add("came back")
            story = f"is drawn by {cell.arm}"
        elif before.state is State.HELD:
            origins.add("came back")
            story = f"came back after {cell.arm} (erased model: {count(before)})"
        else:
            story = f"is present after {cell.arm} (erased model: {count(before)}, not shown to hold)"
        reasons.append(
            f"{cell.surface} {story}: {cell.hits} of {cell.images} images detected (lower bound "
            f"{cell.lower:.1%}, limit {policy.thresholds[1]:.1%})."
        )
    if over and all(cell.state is State.HELD for cell in erased.values()):
        origins.add("came back")
    origin: Literal["not erased", "came back", "undecided"] = "undecided"
    if origins:
        origin = "not erased" if "not erased" in origins else "came back"
    return Verdict(outcome=Outcome.FAIL, origin=origin, reasons=(*reasons, *over))


def _doubt(plan: Plan, evidence: Evidence, cell: CellResult) -> str:
    policy = plan.policy
    limit, alpha = policy.thresholds[0], policy.limits.alpha
    if not is_drawn(cell):
        return f"{cell.surface} on {cell.arm}: {count(cell)}."
    if cell.p_failed <= evidence.alpha_fail:
        return (
            f"{cell.surface} on {cell.arm} is above the limit ({cell.hits} of {cell.images} images "
            "detected), but it is not shown that the detector is rarely wrong on that model state (p "
            f"{cell.q or 1:.2g}), so the hits prove nothing."
        )
    if evidence.sequential:
        size = next(
            planned.size
            for planned in plan.gate_cells
            if (planned.arm, planned.surface) == (cell.arm, cell.surface)
        )
        high, more = cell.hits + cell.missing, np.arange(0, _MORE, size)
        enough = np.flatnonzero(
            eprocess.log_evidence_below(high, cell.images + more, limit, policy.limits.prior)
            >= -math.log(alpha)
        )
        need = (
            f"{more[enough[0]]} more images without a hit would hold"
            if enough.size
            else f"not even {_MORE} more images would hold"
        )
    else:
        most = binomial.largest_held(cell.images, limit, alpha)
        need = (
            "too few images: even none detected would not hold"
            if most is None
            else f"at most {most} detected would hold"
        )
    missing = f", {cell.missing} missing" if cell.missing else ""
    return (
        f"{cell.surface} on {cell.arm} is undecided: {cell.hits} of {cell.images} images detected{missing} "
        f"(upper bound {percent(cell.upper, 1)}, limit {limit:.1%}; {need})."
    )
