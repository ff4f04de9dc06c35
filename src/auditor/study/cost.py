"""What a study would take, before anything is measured: with what is shared, without it, and less what the store holds already."""

from __future__ import annotations

from dataclasses import dataclass

from auditor.plugin import door
from auditor.plugin.contracts import Probe
from auditor.plugin.loader import make_plugin
from auditor.study.expand import Chosen, Expansion
from auditor.study.store import Store


@dataclass(frozen=True)
class StudyCost:
    """Counts of what is still to do, and of what the runs would take each on its own: base, erasure, erased arm and one probe."""

    checkpoints: int
    arms: int
    images: int
    training_steps: int
    measured_arms: int
    """Arms that the store holds."""
    images_alone: int
    checkpoints_alone: int
    calls: int
    """UNet evaluations that drawing and training cost; a training step counts three an image. Erasers are not counted."""


def cost_of(plan: Expansion, chosen: Chosen, store: Store) -> StudyCost:
    """Counts. Before strengths are chosen, each eraser's first stands for the one that will be."""
    study = plan.study
    pictures: set[str] = set()
    arms, checkpoints, steps, training_calls = 0, 0, 0, 0
    images_alone, checkpoints_alone, measured = 0, 0, 0
    for arm in plan.base_arms():
        if store.has(plan.record_key(arm)):
            measured += 1
            continue
        arms += 1
        pictures |= {plan.picture_key(arm, sample) for sample in plan.samples(arm.set)}
    first: Chosen = {(name, key): 0 for name in study.sets for key, use in study.erasers.items() if use.strengths}
    wanted = {erased.key: (erased, False) for erased in plan.candidates()}
    wanted |= {erased.key: (erased, True) for erased in plan.checkpoints(first | chosen)}
    for erased, probed in wanted.values():
        probes = plan.probe_arms(erased) if probed else {}
        all_arms = [plan.erased_arm(erased), *(arm for _, doses in probes.values() for arm in doses)]
        open_arms = [arm for arm in all_arms if not store.has(plan.record_key(arm))]
        measured += len(all_arms) - len(open_arms)
        arms += len(open_arms)
        checkpoints += bool(open_arms) and not store.checkpoint(erased.key).exists()
        pictures |= {plan.picture_key(arm, sample) for arm in open_arms for sample in plan.samples(erased.set)}
        for use, doses in probes.values():
            images_alone += (2 + len(doses)) * len(plan.samples(erased.set))
            checkpoints_alone += 1
            if any(not store.has(plan.record_key(arm)) for arm in doses):
                probe: Probe = make_plugin("probes", use.use, use.options)
                steps += use.doses[-1]
                training_calls += int(door.call(probe, probe.training_calls, use.doses[-1]))
        images_alone += 0 if probed else 2 * len(plan.samples(erased.set))
    calls = len(pictures) * study.sampler.steps * 2 + 3 * training_calls
    return StudyCost(checkpoints, arms, len(pictures), steps, measured, images_alone, checkpoints_alone, calls)
