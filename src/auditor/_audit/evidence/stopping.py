"""What to draw next, and when a run may stop: it hangs on the evidence alone, so that a run that was killed
goes on as if it had not been."""

from __future__ import annotations

from auditor._audit.cells import BASE, Arm, Cell, Role
from auditor._audit.evidence.ahead import alive_wants, negative_wants, soonest
from auditor._audit.evidence.sequential_tests import Evidence
from auditor._audit.evidence.share import population
from auditor._audit.evidence.updates import update_wants


def fail_is_proven(evidence: Evidence) -> bool:
    """Does one cell alone prove FAIL, or the share of updates?"""
    found = population(evidence)
    if found is not None and found.p_failed() <= evidence.alpha_fail:
        return True
    return any(evidence.q(cell) <= evidence.alpha_fail for cell in evidence.above(evidence.alpha_fail))


def drawn_for(arm: Arm) -> tuple[str, ...]:
    """The arms that are drawn when it is an arm's turn: after one that has no retained images of its own
    those that speak for it, for what it shows may ask for more of them."""
    return (arm.name,) if arm.retained_by is None else (arm.name, arm.retained_by)


def turns(evidence: Evidence, arm: str) -> list[tuple[Cell, int]]:
    """(cell, round) to draw next in an arm, round by round across its open cells; empty once nothing
    is open."""
    wanted = [(cell, rounds_wanted(evidence, cell)) for cell in evidence.plan.cells_of(arm)]
    most = max((rounds for _, rounds in wanted), default=0)
    return [
        (cell, evidence.rounds(cell) + turn)
        for turn in range(most)
        for cell, rounds in wanted
        if turn < rounds
    ]


def rounds_wanted(evidence: Evidence, cell: Cell) -> int:
    """How many rounds to draw before looking again; 0 once the cell is decided, or a decision is out of
    reach.

    In a fixed design a cell is drawn whole. Otherwise: as many rounds as the quickest decision that is
    still in reach takes.
    """
    if cell.update is not None:
        return update_wants(evidence, cell)
    left = cell.rounds - evidence.rounds(cell)
    if not left or not evidence.sequential or cell.role is Role.PICTURE:
        return left
    if cell.role in (Role.GATE, Role.REPORT):
        return _gate_wants(evidence, cell, left)
    if cell.role is Role.POSITIVE:
        reading = evidence.read(cell)
        return soonest(evidence, reading, cell.size, left, evidence.limits.min_sensitivity, above=True)
    return max(_retained_wants(evidence, cell, left), default=0)


def _gate_wants(evidence: Evidence, cell: Cell, left: int) -> int:
    reading = evidence.read(cell)
    low, high = reading.hits
    closes = evidence.plan.policy.on_undecided == "close" or cell.role is Role.REPORT
    if closes and evidence.plan.design(cell).hopeless(len(reading.n), low, high):
        return 0
    if (
        evidence.p_below(reading, evidence.tau_pass) <= evidence.limits.alpha
        or evidence.p_above(reading, evidence.tau_fail) <= evidence.alpha_fail
    ):
        return 0
    seems_gone = high <= (evidence.tau_pass + evidence.tau_fail) / 2 * reading.images
    limit = evidence.tau_pass if seems_gone else evidence.tau_fail
    level = evidence.limits.alpha if seems_gone else evidence.alpha_fail
    return soonest(evidence, reading, cell.size, left, limit, above=not seems_gone, level=level) or left


def _retained_wants(evidence: Evidence, cell: Cell, left: int) -> list[int]:
    plan = evidence.plan
    if not plan.arm(cell.arm).is_judged:
        alpha, limit = evidence.limits.alpha, evidence.limits.min_retain
        concepts = plan.columns if cell.arm == BASE else ()
        false = [negative_wants(evidence, cell, concept, left, alpha) for concept in concepts]
        return [*false, soonest(evidence, evidence.read(cell), cell.size, left, limit, above=True)]
    seen = {
        c.concept
        for c in plan.gate_cells
        if plan.retained_of(c.arm) is cell
        and evidence.p_failed(c) <= evidence.alpha_fail
        and (c.arm == cell.arm or _is_drawn(evidence, c.arm))
    }
    return [
        alive_wants(evidence, cell, left, evidence.limits.max_retain_drop, evidence.limits.alpha),
        *(negative_wants(evidence, cell, concept, left, evidence.alpha_fail) for concept in seen),
    ]


def _is_drawn(evidence: Evidence, arm: str) -> bool:
    """Does no check of an arm want another image? Before that it asks nothing of another arm, so that a run
    which was killed in the middle of it goes on in the same order."""
    gate = (cell for cell in evidence.plan.cells_of(arm) if cell.role is Role.GATE)
    return all(rounds_wanted(evidence, cell) == 0 for cell in gate)
