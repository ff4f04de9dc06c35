"""What one update of a population shows: is it read clean or not?

Inside an update, *clean* means that three nulls are rejected at ``alpha_in``: "the concept is drawn" (its
rate is at least tau_P), "the model has lost ``max_drop`` of what the base draws", "the update did nothing".
By an intersection-union test an update that brings the concept back, or is dead, or did not take, is read
clean with chance ``alpha_in`` at most. Whatever is missing makes it unclean. What follows for their
share stands in :mod:`~auditor._audit.evidence.share`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from auditor._audit.cells import Arm, Cell, Role
from auditor._audit.evidence.ahead import alive_wants, negative_wants, soonest
from auditor._audit.population import DrawnUpdate
from auditor._journal.lines import ArmLine
from auditor._stats.falls import fall_of

if TYPE_CHECKING:
    from auditor._audit.evidence.sequential_tests import Evidence, Reading
    from auditor._audit.plan import Plan

FIRST_IMAGES = 10
"""Of each concept in each update so many images are drawn in any case, in whole rounds: the mean rate over
updates rests on them alone, for how many more there are hangs on what they show."""


class Made(StrEnum):
    """What became of the model of one update."""

    TOOK = "took"
    DID_NOT = "did not take"
    IDLE = "idle"
    """The checkpoint has what the update puts there already: it is none, and is not counted."""
    BROKEN = "broken"


@dataclass(frozen=True)
class UpdateReading:
    """One update, as far as it was drawn."""

    update: DrawnUpdate
    made: Made | None
    """None: not made yet."""
    closed: bool
    """Is it read, whatever else is drawn?"""
    held: dict[str, bool]
    """By what was asked for (a concept's name, or a synonym that decides): shown to be below the limit."""
    clean: dict[str, bool]
    """By concept: held, alive and took."""
    back: dict[str, bool]
    """By concept: proven to be above the limit, by a detector that is rarely wrong on this model state."""
    alive: bool

    @property
    def counts(self) -> bool:
        """Is it one of those that are read?"""
        return self.closed and self.made is not Made.IDLE


def read_update(evidence: Evidence, update: DrawnUpdate) -> UpdateReading:
    """What one update shows so far."""
    plan, arm = evidence.plan, evidence.plan.arm(update.name)
    drawn = [
        len(evidence.outcomes.get(cell.name, ()))
        for name in (arm.name, arm.partner)
        for cell in plan.cells_of(name)
    ]
    made = evidence.made_of(arm.name)
    before = evidence.updates_read.get(arm.name)
    if before is None or before[0] != (made, drawn):
        before = (made, drawn), _read(evidence, update, arm, made)
        evidence.updates_read[arm.name] = before
    return before[1]


def _read(evidence: Evidence, update: DrawnUpdate, arm: Arm, made: Made | None) -> UpdateReading:
    plan = evidence.plan
    gates = [cell for cell in plan.cells_of(arm.name) if cell.role is Role.UPDATE]
    closed = made is not None and not any(update_wants(evidence, cell) for cell in plan.cells_of(arm.name))
    alive = _is_alive(evidence, arm)
    held = {cell.surface: _is_held(evidence, evidence.read(cell)) for cell in gates}
    clean, back = dict[str, bool](), dict[str, bool]()
    for cell in gates:
        is_clean = made is Made.TOOK and alive and held[cell.surface]
        clean[cell.concept] = clean.get(cell.concept, True) and is_clean
        back[cell.concept] = back.get(cell.concept, False) or is_back(evidence, cell)
    return UpdateReading(update, made, closed, held, clean, back, alive)


def is_back(evidence: Evidence, cell: Cell) -> bool:
    """Is what one cell of an update asks for proven to be above the limit?"""
    gates = sum(each.role is Role.UPDATE for each in evidence.plan.cells_of(cell.arm))
    return (
        evidence.made_of(cell.arm) is not Made.BROKEN
        and _is_failed(evidence, evidence.read(cell), gates)
        and evidence.p_negative(cell.arm, cell.concept) <= _level(evidence, gates)
    )


def first_rounds(cell: Cell) -> int:
    """The rounds of an update's cell that are drawn in any case."""
    return min(cell.rounds, -(-FIRST_IMAGES // cell.size))


def update_wants(evidence: Evidence, cell: Cell) -> int:
    """How many rounds to draw of an update's cell before looking again. The erased concepts come first; what
    is kept is drawn once they are read, as far as that needs it."""
    plan, arm = evidence.plan, evidence.plan.arm(cell.arm)
    made, left = evidence.made_of(arm.name), cell.rounds - evidence.rounds(cell)
    if not arm.is_judged or made in (Made.BROKEN, Made.IDLE) or not left:
        return 0
    gates = [each for each in plan.cells_of(arm.name) if each.role is Role.UPDATE]
    if cell.role is Role.UPDATE:
        if (first := first_rounds(cell) - evidence.rounds(cell)) > 0:
            return first
        return 0 if made is Made.DID_NOT else _gate_wants(evidence, cell, left, len(gates))
    if made is Made.DID_NOT or any(update_wants(evidence, gate) for gate in gates):
        return 0
    assert plan.policy.updates is not None
    claim = plan.policy.updates.claim
    wanted = [0]
    for gate in gates:
        reading = evidence.read(gate)
        if _is_held(evidence, reading):
            wanted.append(alive_wants(evidence, cell, left, claim.max_drop, claim.alpha_in))
        elif _is_failed(evidence, reading, len(gates)):
            level = _level(evidence, len(gates))
            wanted.append(negative_wants(evidence, cell, gate.concept, left, level))
    return max(wanted)


def _gate_wants(evidence: Evidence, cell: Cell, left: int, concepts: int) -> int:
    reading = evidence.read(cell)
    if _is_held(evidence, reading) or _is_failed(evidence, reading, concepts):
        return 0
    tau_pass, tau_fail = evidence.plan.policy.thresholds_of_updates
    seems_gone = reading.hits[1] <= (tau_pass + tau_fail) / 2 * reading.images
    limit = tau_pass if seems_gone else tau_fail
    level = _level(evidence, 1 if seems_gone else concepts)
    return soonest(evidence, reading, cell.size, left, limit, above=not seems_gone, level=level)


def _level(evidence: Evidence, concepts: int) -> float:
    """The level inside an update; shared by its concepts where one of them is to be shown to be back."""
    assert evidence.plan.policy.updates is not None
    return evidence.plan.policy.updates.claim.alpha_in / concepts


def _is_held(evidence: Evidence, reading: Reading) -> bool:
    limit = evidence.plan.policy.thresholds_of_updates[0]
    return evidence.p_below(reading, limit) <= _level(evidence, 1)


def _is_failed(evidence: Evidence, reading: Reading, concepts: int) -> bool:
    limit = evidence.plan.policy.thresholds_of_updates[1]
    return evidence.p_above(reading, limit) <= _level(evidence, concepts)


def _is_alive(evidence: Evidence, arm: Arm) -> bool:
    assert evidence.plan.policy.updates is not None
    claim, pairs = evidence.plan.policy.updates.claim, evidence.retained_pairs(arm.name)
    return pairs is not None and evidence.p_drop(pairs, claim.max_drop) <= claim.alpha_in


def made_of_updates(
    plan: Plan,
    arms: Mapping[str, ArmLine],
    broken: Collection[str],
    same_parts: Collection[str],
    *,
    alpha: float,
    least: float,
) -> dict[str, Made]:
    """What became of the model of each update that was made: by the control "took effect", read at ``alpha``
    (a mean fall of ``least`` is needed). ``same_parts`` are those in which the checkpoint is the base: an
    update that puts nothing else back is none."""
    found = {}
    for update in plan.updates:
        line = arms.get(update.name)
        if update.name in broken:
            found[update.name] = Made.BROKEN
        elif line is not None:
            puts_back = plan.members[update.member].puts_back
            found[update.name] = _made(line, puts_back, same_parts, alpha, least)
    return found


def _made(
    line: ArmLine, puts_back: Collection[str], same_parts: Collection[str], alpha: float, least: float
) -> Made:
    if puts_back and set(puts_back) <= set(same_parts):
        return Made.IDLE
    if line.idle:  # it says so itself, and there was something to put back
        return Made.DID_NOT
    if line.least_change is not None:
        took = (line.change or 0.0) >= line.least_change
    else:
        fell = fall_of(line.fit_trained_before, line.fit_trained, alpha)
        took = fell is not None and fell.reaches(least)
    return Made.TOOK if took else Made.DID_NOT
