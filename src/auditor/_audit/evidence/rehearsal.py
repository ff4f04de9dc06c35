"""Plays an audit against outcomes that are known beforehand: what would be drawn, and what would be known at
the end.

The forecast plays audits in which everything goes well; the simulations that audit the auditor play thousands
at random. What is drawn next is decided by the same
:class:`~auditor._audit.evidence.sequential_tests.Evidence` as in a run.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from auditor._audit.cells import Role, Seeds
from auditor._audit.evidence.sequential_tests import Evidence, Outcomes
from auditor._audit.evidence.share import wants_more
from auditor._audit.evidence.stopping import drawn_for, fail_is_proven, turns
from auditor._audit.plan import Plan

SEEDS = Seeds("rehearsal", "rehearsal")


def rehearse(plan: Plan, outcomes: Mapping[str, Outcomes], batch: int, seeds: Seeds = SEEDS) -> Evidence:
    """The evidence when nothing more would be drawn. ``outcomes`` holds every cell's whole table (see
    Evidence)."""
    drawn = dict.fromkeys(outcomes, 0)
    known: dict[str, Outcomes] = {}
    evidence = Evidence(plan, seeds, known)

    def draw(cell: str, upto: int) -> None:
        drawn[cell] = max(drawn[cell], upto)
        known[cell] = outcomes[cell][: drawn[cell]]

    for arm in (name for each in plan.arms for name in drawn_for(each)):
        if plan.arm(arm).update is not None and not wants_more(evidence):
            continue
        while wanted := turns(evidence, arm):
            room = batch
            for cell, turn in wanted:
                done = max(drawn[cell.name] - turn * cell.size, 0)
                take = min(cell.size - done, room)
                partner = plan.retained_partner(arm) if cell.role is Role.RETAINED else None
                if partner is not None and partner is not cell:
                    draw(partner.name, (turn + 1) * partner.size)
                draw(cell.name, turn * cell.size + done + take)
                room -= take
                if not room:
                    break
            if plan.policy.on_fail == "stop" and fail_is_proven(evidence):
                return evidence
    return evidence


def all_is_well(plan: Plan, seeds: Seeds = SEEDS, *, erased: bool = True) -> dict[str, Outcomes]:
    """Outcomes of an audit in which the base shows everything, every arm what was retained, and none what
    was erased (or all do)."""
    tables = {}
    for cell in plan.cells:
        table = np.zeros((cell.images, len(plan.columns)), np.int8)
        if cell.role is Role.RETAINED or not plan.arm(cell.arm).is_judged or not erased:
            table[np.arange(cell.images), [plan.columns[concept] for concept in cell.concepts(seeds)]] = 1
        tables[cell.name] = table
    return tables
