"""Whether a run has anything left to do: one that has not is asked again without a model."""

from __future__ import annotations

from auditor._audit.cells import Role
from auditor._audit.evidence.counts import Tally
from auditor._audit.evidence.share import wants_more
from auditor._audit.evidence.stopping import fail_is_proven, turns
from auditor._audit.plan import Plan
from auditor.plugin.contracts import WeightProbe
from auditor.plugin.instruments import Instruments


def is_finished(plan: Plan, instruments: Instruments, counted: Tally, manifest: str) -> bool:
    """Would a process with both models neither draw, train nor measure anything? ``manifest``: the sha256 of
    the one that it would find. In doubt the answer is no."""
    updates = {update.name for update in plan.updates}  # one that broke counts against the claim
    if counted.manifest != manifest or counted.broken.keys() - updates or counted.voided:
        return False
    if plan.has_base and (counted.compared is None or not counted.distances):
        return False
    evidence = counted.evidence()
    if plan.policy.on_fail == "stop" and fail_is_proven(evidence):
        return True
    minutes = plan.policy.budget.minutes
    if minutes is not None and counted.stopped is not None and counted.seconds > 60 * minutes:
        return True
    if wants_more(evidence):
        return False
    made = {arm.name for arm in plan.arms if arm.name in counted.arms}
    shams = {
        plan.no_op_name(number)
        for number, probe in enumerate(instruments.all_probes)
        if isinstance(probe, WeightProbe)
        and probe.has_sham
        and (number < len(plan.policy.probes) or plan.probe_names[number] in made)
    }
    named = [arm for arm in plan.arms if arm.update is None]
    return (
        all(arm.name in made for arm in named)
        and not any(counted.failed_batches(arm.name) for arm in plan.arms)
        and not any(turns(evidence, arm.name) for arm in named)
        and shams <= counted.shams.keys()
        and (not plan.has_base or (counted.repeat is not None and counted.repeat.drawn > 0))
        and all(
            (cell.arm, metric.use) in counted.metrics
            for metric in plan.policy.metrics
            for cell in plan.cells
            if cell.role is Role.RETAINED and cell.update is None
        )
    )
