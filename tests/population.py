"""A policy with a population of updates, and journals of it written by hand for the judge."""

from __future__ import annotations

from typing import Any

from auditor._audit.cells import PlannedSample, Role
from auditor._audit.plan import Plan, make_plan
from auditor._journal.lines import Line, ShamLine
from auditor.report import Report
from tests.conftest import Rate, erased_well, journal_of, short_policy, verdict_of

TRAIN = {"candidates": "micro-people", "prompts": "paper-people", "names": 2, "images_per_prompt": 1}
POPULATION = [
    {
        "use": "in-domain",
        "weight": 2,
        "steps": [20, 30],
        "options": TRAIN,
        "draw": {"learning_rate": [1e-2, 2e-2]},
    },
    {"use": "in-domain", "method": "full", "steps": [20], "options": TRAIN | {"learning_rate": 1e-3}},
]


def plan_over(updates: int, claim: dict[str, Any] | None = None, **changes: object) -> Plan:
    """Two kinds of update, so many of them at most, and no probe beside them."""
    population = {
        "population": POPULATION,
        "claim": {"share": 0.2} | (claim or {}),
        "budget": {"updates": updates, "images_per_update": 80, "retained_per_update": 150},
    }
    budget = {"images_per_cell": 60, "retained_per_arm": 200}
    policy: dict[str, object] = {"probes": [], "sequential": True, "updates": population, "budget": budget}
    return make_plan(short_policy(**policy | changes))


def journal_over(plan: Plan, hit: Rate = erased_well, **more: Any) -> list[Line]:
    """Every update of ``plan`` as if it had been made, took, and was drawn."""
    shams = [ShamLine(probe=f"updates.{each.name}", images=8, different=0) for each in plan.members]
    return [*journal_of(plan, hit, **more), *shams]


def back_in(*numbers: int) -> Rate:
    """The concept is in every image after these updates, and in none of the others."""

    def hit(planned: PlannedSample) -> bool:
        there = planned.cell.role is Role.UPDATE and planned.cell.update in numbers
        return erased_well(planned) or there

    return hit


def report_over(updates: int, *back: int, claim: dict[str, Any] | None = None, **more: Any) -> Report:
    """The report of an audit in which these updates brought the concept back."""
    plan = plan_over(updates, claim)
    return verdict_of(plan, journal_over(plan, back_in(*back), **more))
