"""What a study takes, before anything is measured: what is still to do, and what the same runs would take
without sharing."""

from __future__ import annotations

from dataclasses import dataclass

from auditor._files.images import PictureCache
from auditor._study.expand import Chosen, Expansion, StudyArm
from auditor._study.store import Store
from auditor.plugin._loader import make_plugin
from auditor.plugin.contracts import WeightProbe
from auditor.plugin.instruments import training_calls_of
from auditor.policy import ProbeUse

_BACKWARD = 3  # a training step costs about three forward passes an image


@dataclass(frozen=True)
class Takes:
    """Counts. Images are those of base, erased and probed arms; probes' training sets and erasers' own
    come on top."""

    checkpoints: int = 0
    trainings: int = 0
    steps: int = 0
    """Of all trainings, or whatever doses are counted in."""
    images: int = 0
    calls: int = 0
    """UNet evaluations: two a denoising step, for guidance, and three a trained image. Erasers are not
    counted."""


@dataclass(frozen=True)
class StudyCost:
    """What is still to do, what all of it takes, and what it would take as single runs: a base, an
    erasure, its arm and one probe each."""

    to_do: Takes
    whole: Takes
    alone: Takes
    arms: int
    measured: int


def cost_of(plan: Expansion, chosen: Chosen, store: Store) -> StudyCost:
    """Counts. Before strengths are chosen, each eraser's first stands for the one that will be."""
    study, kept = plan.study, PictureCache(store.pictures)
    first: Chosen = {
        (name, key): 0 for name in study.sets for key, use in study.erasers.items() if use.strengths
    }
    runs = plan.checkpoints(first | chosen)
    trainings = {erased.key: list(plan.probe_arms(erased).values()) for erased in runs}
    all_erased = {erased.key: erased for erased in (*plan.candidates(), *runs)}
    arms = [*plan.base_arms(), *(plan.erased_arm(erased) for erased in all_erased.values())]
    arms += [arm for each in trainings.values() for _, doses in each for arm in doses]
    still_open = {plan.record_key(arm) for arm in arms if not store.has(plan.record_key(arm))}

    def missing(arm: StudyArm) -> set[str]:
        keys = (
            {plan.picture_key(arm, sample) for sample in plan.samples(arm.set)}
            if plan.record_key(arm) in still_open
            else set()
        )
        return {key for key in keys if not kept.has(key)}

    to_train = [
        (use, doses)
        for each in trainings.values()
        for use, doses in each
        if any(missing(arm) for arm in doses)
    ]
    to_make = [erased for erased in all_erased.values() if not store.checkpoint(erased.key).exists()]
    every = [pair for each in trainings.values() for pair in each]
    own = len({plan.picture_key(arm, sample) for arm in arms for sample in plan.samples(arm.set)})
    alone = sum((2 + len(doses)) * len(plan.samples(doses[0].set)) for _, doses in every)
    return StudyCost(
        to_do=_takes(plan, len(to_make), to_train, len(set().union(*(missing(arm) for arm in arms)))),
        whole=_takes(plan, len(all_erased), every, own),
        alone=_takes(plan, len(every), every, alone),
        arms=len(arms),
        measured=len(arms) - len(still_open),
    )


def _takes(
    plan: Expansion, checkpoints: int, trainings: list[tuple[ProbeUse, tuple[StudyArm, ...]]], images: int
) -> Takes:
    calls = images * plan.study.sampler.steps * 2
    for use, _ in trainings:
        probe: WeightProbe = make_plugin("probes", use.use, use.options)
        calls += _BACKWARD * training_calls_of(probe, use.doses[-1])
    return Takes(checkpoints, len(trainings), sum(use.doses[-1] for use, _ in trainings), images, calls)
