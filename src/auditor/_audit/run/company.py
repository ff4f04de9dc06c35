"""Which training runs go through the denoiser together.

It follows from the policy and its budget alone, so that every machine trains the same company: an arm's last
bits hang on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from auditor._audit.cells import Arm
from auditor._audit.plan import Plan
from auditor._diffusion.finetune import Training

_MOST = 3  # runs of one pass: a step of twelve rows costs a run half of what four rows alone cost
_WINDOW = 6
"""Updates of the population that may be trained together are among as many that follow each other: more would
be trained in vain where few decide."""


@dataclass(frozen=True, order=True)
class TrainingRun:
    """One probe trained with one seed, by its place in the policy and its number."""

    probe: int
    replicate: int


def arms_of(plan: Plan, run: TrainingRun) -> dict[int, Arm]:
    """The arms of one run, by dose."""
    return {arm.dose: arm for arm in plan.arms if arm.probe == run.probe and arm.replicate == run.replicate}


def companies(plan: Plan, trainings: Mapping[int, Training]) -> dict[TrainingRun, tuple[TrainingRun, ...]]:
    """The company of each run that may have one, itself among it, in the policy's order.

    ``trainings`` holds how each probe trains that may go together with others. Under ``on_fail: stop`` the
    first run has no company: what it shows may be enough.
    """
    runs = [
        TrainingRun(number, replicate)
        for number, use, _ in plan.training
        if number in trainings
        for replicate in range(1, use.replicates + 1)
    ]
    alone = runs[:1] if plan.policy.on_fail == "stop" else []
    alike: dict[tuple[Training, int | None], list[TrainingRun]] = {}
    for run in runs[len(alone) :]:
        kind = replace(trainings[run.probe], learning_rate=0.0, weight_decay=0.0)
        update = run.probe - len(plan.policy.probes)
        alike.setdefault((kind, update // _WINDOW if update >= 0 else None), []).append(run)
    groups = [(run,) for run in alone] + [part for group in alike.values() for part in _parted(group)]
    return {run: group for group in groups for run in group}


def _parted(runs: Sequence[TrainingRun]) -> list[tuple[TrainingRun, ...]]:
    """Parts of at most three, as even as can be, and two where there are two: they are trained side by
    side."""
    parts = max(-(-len(runs) // _MOST), min(2, len(runs)))
    size, more = divmod(len(runs), parts)
    ends = [number * size + min(number, more) for number in range(parts + 1)]
    return [tuple(runs[start:end]) for start, end in pairwise(ends)]
