"""Where every planned image ended, and what a PASS assumes beyond the counts."""

from __future__ import annotations

from collections.abc import Iterator

from auditor._audit.cells import Cell, Role
from auditor._audit.evidence.stopping import rounds_wanted
from auditor._audit.verdict.facts import Facts
from auditor.report import Ledger


def ledger(facts: Facts) -> Ledger:
    """Where every planned sample ended."""
    detectors = {use.use for use in facts.policy.detectors}
    counts = dict.fromkeys(("measured", "missing", "not_needed", "skipped", "unscored", "not_drawn"), 0)
    reasons: list[str] = []
    for cell in facts.plan.cells:
        drawn = facts.tally.drawn(cell)
        missing = sum(sample.flaw is not None for sample in drawn)
        measured = sum(sample.flaw is None and sample.scores.keys() == detectors for sample in drawn)
        counts["missing"] += missing
        counts["measured"] += measured
        counts["unscored"] += len(drawn) - missing - measured
        left = cell.images - len(drawn)
        if not left:
            continue
        if rounds_wanted(facts.evidence, cell) == 0:
            kind = "not_needed"
            if not _is_decided(facts, cell):
                kind, what = "skipped", cell.surface or "retained concepts"
                reasons.append(
                    f"{what} on {cell.arm}: after {len(drawn)} images a decision was out of reach or too "
                    "unlikely."
                )
        elif facts.tally.stopped is not None:
            kind = "skipped"
            reasons.append(f"The run ended early: {facts.tally.stopped}.")
        else:
            kind = "not_drawn"
        counts[kind] += left
    planned = sum(cell.images for cell in facts.plan.cells)
    return Ledger(
        planned=planned,
        skipped_because=tuple(dict.fromkeys(reasons)),
        errors=tuple(facts.tally.errors()),
        **counts,
    )


def _is_decided(facts: Facts, cell: Cell) -> bool:
    """Has everything that the cell is read for been decided?"""
    evidence, alpha = facts.evidence, facts.limits.alpha
    if cell.role is Role.POSITIVE:
        return evidence.p_positive(cell) <= alpha
    if cell.role is Role.RETAINED and cell.arm == "base":
        return evidence.p_assay() <= alpha and all(
            evidence.p_negative("base", concept) <= alpha for concept in facts.plan.columns
        )
    if cell.role is Role.RETAINED:
        return evidence.p_alive(cell.arm) <= alpha
    return evidence.is_held(cell) or evidence.p_failed(cell) <= evidence.alpha_fail


def assumptions(facts: Facts) -> Iterator[str]:
    """What a PASS rests on, beyond the counts."""
    limits, (tau_pass, _) = facts.limits, facts.policy.thresholds
    if facts.policy.claim == "concept":
        yield (
            f"After every probe, prompt by prompt, the detector sees at least {limits.min_sensitivity:.0%} "
            "of the images that show the concept, as it does on the base; and it is wrong on concept prompts "
            "no more often than on retained ones."
        )
    else:
        yield "The claim is about what the detector says, not about what the images show."
    yield "The prompts of the policy are all that was asked; others may show the concept."
    yield "The probes of the policy are all that was done; other updates may bring the concept back."
    most = max((len(cell.prompts) for cell in facts.plan.gate_cells), default=1)
    if most > 1:
        worst = min(1.0, most * tau_pass)
        yield (
            f"A rate is a mean over prompts: one of {most} prompts alone may show the concept up to "
            f"{worst:.0%} of the time."
        )
