"""What a policy would need for a PASS that is out of its reach."""

from __future__ import annotations

from collections.abc import Callable

from auditor._audit.cells import Role
from auditor._audit.cost import out_of_reach
from auditor._audit.plan import Plan, lay_out
from auditor._stats.design import least_images, least_pairs
from auditor.errors import PolicyError
from auditor.policy import Policy

_MOST = 16  # times the budget
_MOST_CONCEPTS = 12
_FINER = 3  # halvings of the last step


def no_pass(plan: Plan) -> list[str]:
    """Why no checkpoint can PASS this plan; empty where one can."""
    return [reason for reason in out_of_reach(plan) if reason.startswith("PASS:")]


def what_would_do(plan: Plan) -> str:
    """How many images, or how many retained concepts, would make a PASS possible, in a sentence."""
    policy = plan.policy
    if policy.base == "none":
        return "With a base (the checkpoint before erasure) a PASS is possible."
    if policy.is_comparison:
        return "With image seeds that nobody knows before (no evaluation_seeds) a PASS is possible."
    if (over := _updates_that_suffice(plan)) is not None:
        return over
    found = enough_images(plan)
    if found is not None:
        return (
            f"Enough would be budget: {{images_per_cell: {found[0]}, retained_per_arm: {found[1]}}}; before: "
            f"{policy.budget.images_per_cell}, {policy.budget.retained_per_arm}."
        )
    kept = len(policy.retain)
    for count in range(max(kept, 1) + 1, _MOST_CONCEPTS + 1):
        more = _with_retained(plan, count)
        if more is not None and (not no_pass(more) or enough_images(more) is not None):
            budget = "" if not no_pass(more) else " and a larger budget"
            return f"Enough would be {count} retained concepts{budget}; before: {kept}."
    return (
        "Neither more images nor more retained concepts would do: look at the limits ('auditor policy "
        "explain')."
    )


def _updates_that_suffice(plan: Plan) -> str | None:
    """What a population would need, in a sentence; None where it has that, or there is none."""
    updates, limits = plan.policy.updates, plan.policy.limits
    if updates is None:
        return None
    budget, claim = updates.budget, updates.claim
    size, kept = (
        max(cell.size for cell in plan.cells if cell.update and cell.role is role)
        for role in (Role.UPDATE, Role.RETAINED)
    )
    limit = claim.share * (1 - claim.alpha_in)
    least = (
        least_images(1, limit, limits.alpha, limits.prior),
        least_images(size, plan.policy.thresholds_of_updates[0], claim.alpha_in, limits.prior),
        least_pairs(kept, claim.max_drop, claim.alpha_in),
    )
    now = (budget.updates, budget.images_per_update, budget.retained_per_update)
    if all(need <= own for need, own in zip(least, now, strict=True)):
        return None
    wanted = max(least[0], now[0]), max(2 * least[1], now[1]), max(3 * least[2], now[2])
    return (
        f"Enough would be updates.budget: {{updates: {wanted[0]}, images_per_update: {wanted[1]}, "
        f"retained_per_update: {wanted[2]}}}; before: {now[0]}, {now[1]}, {now[2]}."
    )


def enough_images(plan: Plan) -> tuple[int, int] | None:
    """(images_per_cell, retained_per_arm) with which a PASS is possible: about the least, none of them below
    the policy's; None where sixteen times as many would not do."""
    budget = plan.policy.budget
    now = (budget.images_per_cell, budget.retained_per_arm)
    if _suffices(plan, *now):
        return now
    times = 2
    while times <= _MOST and not _suffices(plan, now[0] * times, now[1] * times):
        times *= 2
    if times > _MOST:
        return None
    cell, arm = now[0] * times, now[1] * times
    cell = _least(now[0], cell, lambda images: _suffices(plan, images, arm))
    arm = _least(now[1], arm, lambda images: _suffices(plan, cell, images))
    return cell, arm


def _least(low: int, high: int, suffices: Callable[[int], bool]) -> int:
    """About the least number that ``suffices``, of ``low`` (which may) and ``high`` (which does)."""
    if suffices(low):
        return low
    for _ in range(_FINER):
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def _suffices(plan: Plan, images_per_cell: int, retained_per_arm: int) -> bool:
    policy = plan.policy
    budget = policy.budget.model_copy(
        update={"images_per_cell": images_per_cell, "retained_per_arm": retained_per_arm}
    )
    larger = _laid_out(plan, policy.model_copy(update={"budget": budget}))
    return larger is not None and not no_pass(larger)


def _with_retained(plan: Plan, count: int) -> Plan | None:
    """The same with so many retained concepts; the added ones are asked for as the first is, or as the first
    erased one."""
    policy = plan.policy
    like = (*policy.retain, *policy.erase)[0]
    added = tuple(
        like.model_copy(update={"name": f"retained {number}", "synonyms": (), "evaluation_seeds": ()})
        for number in range(count - len(policy.retain))
    )
    return _laid_out(plan, policy.model_copy(update={"retain": (*policy.retain, *added)}))


def _laid_out(plan: Plan, policy: Policy) -> Plan | None:
    try:
        return lay_out(policy, plan.told, plan.contents)
    except PolicyError:
        return None
