"""Does what a study takes and the store does not hold yet: erases, trains, and has every arm measured.

The unit of work is an erased checkpoint with all its arms. It is made once, kept as the tensors that changed,
and each probe trains a copy of it. Several processes may work on one store: each takes the next unit that
nobody holds. What is cut short loses at most the training of one arm and the batch that was being drawn.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from auditor._audit.run.probing import Looking, check_training, train
from auditor._audit.run.training_set import Choice, TrainingSet, make_training_set
from auditor._audit.run_folder.arms import digest_of_arm
from auditor._checkpoint import Checkpoint, open_checkpoint
from auditor._checkpoint.load import load_model, precision_of
from auditor._diffusion.geometry import weight_distances
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.original import Original
from auditor._erase.erase import erase
from auditor._erase.save import changed_file
from auditor._process.watchdog import WATCHDOG
from auditor._study.expand import Chosen, Erased, Expansion, StudyArm, StudySample
from auditor._study.measure import ArmMeasurer, never
from auditor._study.store import Store, StudyProgress
from auditor.errors import AuditorError
from auditor.plugin._loader import make_plugin
from auditor.plugin.contracts import WeightProbe
from auditor.policy import ProbeUse

_PAUSE = 0.5


@dataclass(frozen=True)
class _Unit:
    """What one process does at a time."""

    key: str
    title: str
    arms: tuple[StudyArm, ...]
    do: Callable[[], None]


class Worker:
    """One process at work on a study."""

    def __init__(
        self, plan: Expansion, store: Store, opened: Checkpoint, base: DiffusionModel, progress: StudyProgress
    ) -> None:
        self.plan, self.study, self.store = plan, plan.study, store
        base = replace(base, precision=precision_of(self.study.sampler.dtype, base.device))
        base.keep_latents()  # every checkpoint whose autoencoder is the base's trains on the same pictures
        self._opened, self._base, self._progress = opened, base, progress
        self._base_original = Original(base)
        self._measurer = ArmMeasurer(plan, store, progress)
        self._trained_on: dict[tuple[str, str], tuple[WeightProbe, TrainingSet, tuple[str, ...]]] = {}

    @property
    def failures(self) -> int:
        """Arms and metrics that broke."""
        return self._measurer.failures

    def run(self, choose: Callable[[], Chosen]) -> None:
        """Everything: the base, the strengths to choose from, then every checkpoint. ``choose`` reads the
        store in between."""
        with WATCHDOG.waiting(None, lambda sentence: None):
            self._work([self._base_unit(arm) for arm in self.plan.base_arms()])
            self._work([self._unit(erased, probed=False) for erased in self.plan.candidates()])
            self._work([self._unit(erased, probed=True) for erased in self.plan.checkpoints(choose())])

    # -- units -----------------------------------------------------------------------------------------------

    def _work(self, units: Sequence[_Unit]) -> None:
        """Do every unit that is not done and that nobody else does; wait for those."""
        total, waiting, told = len(units), list(units), False
        while waiting:
            taken = False
            for unit in list(waiting):
                if not self._is_done(unit):
                    with self.store.claim(unit.key) as mine:
                        if not mine:
                            continue
                        if not self._is_done(unit):
                            self._progress.unit(unit.title, total - len(waiting), total)
                            unit.do()
                waiting.remove(unit)
                taken = True
            if waiting and not taken:
                if not told:
                    self._progress.waiting(len(waiting))
                told = True
                time.sleep(_PAUSE)

    def _is_done(self, unit: _Unit) -> bool:
        return all(self._measurer.is_measured(arm) for arm in unit.arms)

    def _base_unit(self, arm: StudyArm) -> _Unit:
        def do() -> None:
            with self._measurer.breaking(self.plan.record_key(arm), f"{arm.set} · base"):
                self._measurer.measure(arm, f"{arm.set} · base", lambda: self._base)

        return _Unit(f"base-{self.plan.record_key(arm)}", f"{arm.set} · base", (arm,), do)

    def _unit(self, erased: Erased, *, probed: bool) -> _Unit:
        first = self.plan.erased_arm(erased)
        probes = self.plan.probe_arms(erased) if probed else {}
        arms = (first, *(arm for _, doses in probes.values() for arm in doses))

        def do() -> None:
            self._do(erased, first, probes)

        return _Unit(erased.key, erased.title, arms, do)

    def _do(
        self, erased: Erased, first: StudyArm, probes: dict[str, tuple[ProbeUse, tuple[StudyArm, ...]]]
    ) -> None:
        made = _Made(lambda: self._checkpoint(erased))
        if not self._measurer.is_measured(first):
            with self._measurer.breaking(self.plan.record_key(first), erased.title):
                self._measurer.measure(
                    first, erased.title, lambda: made.model, lambda: self._of_checkpoint(made)
                )
        for name, (use, doses) in probes.items():
            if all(self._measurer.is_measured(arm) for arm in doses):
                continue
            with self._measurer.breaking(self.plan.record_key(doses[-1]), f"{erased.title} · {name}"):
                self._probe(erased, name, use, doses, made)

    # -- checkpoints and probes ------------------------------------------------------------------------------

    def _checkpoint(self, erased: Erased) -> tuple[DiffusionModel, float]:
        """The erased model, and the seconds it took to make; kept ones are read."""
        folder, use = self.store.checkpoint(erased.key), self.study.erasers[erased.eraser]
        changed, began = folder / changed_file(self._base.family), time.monotonic()
        if changed.exists():
            opened = open_checkpoint(str(changed), base=self._opened)
            return replace(load_model(opened, self.study.sampler.dtype), digest=erased.key), 0.0
        model = replace(self._base_original.fresh(), precision=torch.float32)
        options = use.resolved(erased.set, erased.strength)
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = folder.with_name(f"{folder.name}.new")
        shutil.rmtree(made, ignore_errors=True)
        erase(
            (self._opened, model),
            self.plan.policy(erased.set),
            use.use,
            made,
            options=options,
            seed=self.plan.erasing_seed(erased.replicate),
            save="delta",
            on_step=self._progress.step,
        )
        self.plan.check_files("erasers", use.use, options)
        made.rename(folder)
        model.forget_text_states()
        return replace(model, precision=self._base.precision, digest=erased.key), time.monotonic() - began

    def _of_checkpoint(self, made: _Made) -> dict[str, object]:
        model = made.model
        return {
            "making": made.seconds,
            "weights": digest_of_arm(model),
            "distances": weight_distances(self._base, model),
        }

    def _probe(
        self, erased: Erased, name: str, use: ProbeUse, doses: Sequence[StudyArm], made: _Made
    ) -> None:
        """Train once, and measure every dose on the way. What was trained and drawn before is held against
        today's detectors alone."""
        probe, training, concepts = self._training_set(erased.set, name, use)
        check_training(probe, training)
        arms, title = {arm.dose: arm for arm in doses}, f"{erased.title} · {name}"
        if all(self._measurer.is_drawn(arm) for arm in doses):
            for arm in doses:
                self._measurer.measure(arm, title, never)
            return

        def on_step(step: int) -> None:
            WATCHDOG.alive()
            self._progress.step(f"training {name}", step, use.doses[-1])

        seed = self.plan.training_seed(name, erased.replicate)
        made.model.keep_latents(self._base)
        looking = Looking(probe, use, made.original, made.model, training, seed)
        with closing(train(looking, on_step)) as reached_doses:
            for reached in reached_doses:
                facts: dict[str, object] = {
                    "making": reached.seconds,
                    "weights": digest_of_arm(reached.model),
                    "fit_before": _mean(reached.fit_before),
                    "fit": _mean(reached.fit),
                    "change": reached.change.relative,
                    "trained_on": concepts,
                }
                self.plan.check_files("probes", use.use, use.options)
                model = reached.model
                label = f"{title} · {reached.dose}" if len(doses) > 1 else title
                self._measurer.measure(
                    arms[reached.dose], label, partial(_same, model), partial(_same, facts), anew=True
                )

    def _training_set(
        self, name: str, arm: str, use: ProbeUse
    ) -> tuple[WeightProbe, TrainingSet, tuple[str, ...]]:
        """A probe for one set of concepts, what it trains on, and the concepts in it: drawn by the base, once
        in a store.

        All replicates are trained by the probe that asked for the set, as in an audit: it may remember what
        it asked for.
        """
        if (name, arm) not in self._trained_on:
            probe: WeightProbe = make_plugin("probes", use.use, use.options)
            policy, seeds = self.plan.policy(name), self.plan.seeds

            def drawn(prompts: Sequence[str], image_seeds: Sequence[int]) -> tuple[Tensor, list[bool]]:
                pairs = zip(prompts, image_seeds, strict=True)
                samples = [StudySample("unrelated", "", prompt, 0, seed) for prompt, seed in pairs]
                images, flaws, _ = self._measurer.images(
                    self.plan.base_arms()[0], samples, lambda: self._base
                )
                return images, [flaw != "not finite" for flaw in flaws]

            may_show = partial(self._measurer.may_show, name)
            training, line = make_training_set(
                probe, arm, policy, seeds, Choice.usual(seeds, probe), drawn, may_show
            )
            self._trained_on[name, arm] = probe, training, line.concepts
        return self._trained_on[name, arm]


class _Made:
    """An erased checkpoint, made or read when it is first asked for."""

    def __init__(self, make: Callable[[], tuple[DiffusionModel, float]]) -> None:
        self._make = make
        self._failure: AuditorError | None = None

    @cached_property
    def _pair(self) -> tuple[DiffusionModel, float]:
        if self._failure is not None:  # it is not tried again for every probe
            raise self._failure
        try:
            return self._make()
        except AuditorError as error:
            self._failure = error
            raise

    @property
    def model(self) -> DiffusionModel:
        """The model; nobody changes it."""
        return self._pair[0]

    @property
    def seconds(self) -> float:
        """What making it took."""
        return self._pair[1]

    @cached_property
    def original(self) -> Original:
        """Lends copies of it."""
        return Original(self.model)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _same(value: Any) -> Any:
    """What it is given: a value where a function is asked for."""
    return value
