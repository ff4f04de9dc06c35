"""What a plan can tell, before any image is drawn: exact chances that what is as it should be is shown to
be."""

from __future__ import annotations

from collections.abc import Iterator

from auditor._audit.cells import ERASED, Role
from auditor._audit.plan import Plan
from auditor._stats.one_update import UpdateDesign
from auditor._stats.over_updates import ShareDesign, unclean_chance
from auditor.report.words import percent

LOST = 0.04
"""Of what is kept: a loss that an erasure may well have, and that a control should let pass."""
GOOD_RATES, GOOD_LOSS = (0.0, 0.01), 0.02
"""Of good updates: rates of the concept, and what they lose of what is kept."""


def reading_of(plan: Plan) -> UpdateDesign:
    """How the policy of ``plan`` reads one update of its population."""
    policy = plan.policy
    assert policy.updates is not None
    claim = policy.updates.claim
    first = plan.updates[0].name
    gate = next(cell for cell in plan.cells_of(first) if cell.role is Role.UPDATE)
    kept = plan.cell(first, Role.RETAINED)
    assert kept is not None
    tau_pass, tau_fail = policy.thresholds_of_updates
    return UpdateDesign(
        gate.size,
        gate.images,
        kept.size,
        kept.images,
        tau_pass,
        tau_fail,
        claim.max_drop,
        policy.limits.max_false_positive,
        claim.alpha_in,
        policy.limits.prior,
    )


def utility_power(plan: Plan, lost: float = LOST) -> float | None:
    """The chance that a model state passes the control "utility" which lost ``lost`` of what the base draws,
    and gained nothing; None where nothing is to be kept, or checks are read once."""
    cell, limits = plan.cell(ERASED, Role.RETAINED), plan.policy.limits
    if cell is None or not plan.has_base or not plan.policy.sequential:
        return None
    tau_pass, tau_fail = plan.policy.thresholds
    design = UpdateDesign(
        cell.size,
        cell.size,
        cell.size,
        cell.images,
        tau_pass,
        tau_fail,
        limits.max_retain_drop,
        limits.max_false_positive,
        limits.alpha,
        limits.prior,
    )
    return design.alive(lost).shown


def powers(plan: Plan) -> Iterator[str]:
    """The same in sentences."""
    power = utility_power(plan)
    if power is not None:
        yield (
            f"A model state that has lost {percent(LOST)} of what is kept passes the control 'utility' with "
            f"chance {power:.2f}."
        )
    if plan.policy.updates is None or not plan.updates:
        return
    claim, limits, reading = plan.policy.updates.claim, plan.policy.limits, reading_of(plan)
    design = ShareDesign(
        claim.share, len(plan.updates), limits.alpha, claim.alpha_in, plan.hypotheses, limits.prior
    )
    for rate in GOOD_RATES:
        good = reading.outlook(rate, GOOD_LOSS)
        found = design.outlook(unclean_chance(0.0, 0.0, 1 - good.clean))
        yield (
            f"Updates after which the concept is drawn in {percent(rate)} and {percent(GOOD_LOSS)} of what "
            f"is kept is lost are each read clean with chance {good.clean:.3f}; were all so, PASS has chance "
            f"{found.passed:.2f}, after {found.updates:.0f} updates of {good.images + good.retained:.0f} "
            "images on average."
        )
