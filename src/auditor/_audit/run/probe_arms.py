"""Makes and draws the arms of each probe: its training set, its no-op control, its training seeds."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

from auditor._audit.cells import ERASED, Arm, Seeds, Weights
from auditor._audit.evidence.stopping import turns
from auditor._audit.plan import Plan
from auditor._audit.run.drawing import Drawing
from auditor._audit.run.probing import allowed_changes, check_training, train
from auditor._audit.run.recorder import Deadline, Recorder
from auditor._audit.run.second_look import Recheck, base_beside
from auditor._audit.run.training_set import (
    TrainingSet,
    ask_for_training_set,
    captions_of,
    make_training_set,
)
from auditor._audit.run_folder.arms import ArmStore, digest_of_arm, rebuilt
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.original import Original
from auditor._diffusion.seeds import training_seed
from auditor._journal.lines import ArmLine, ShamLine
from auditor._process.watchdog import WATCHDOG
from auditor.errors import PluginError, UsageError
from auditor.plugin import _door as door
from auditor.plugin.contracts import Update, WeightProbe
from auditor.policy import ProbeUse

_SHAM_STEPS = 2
_ROUNDING = 1e-6  # a relative change below it is float32's own


class ProbeArms:
    """The arms that probes make of one erased model."""

    def __init__(
        self,
        plan: Plan,
        probes: Mapping[int, WeightProbe],
        seeds: Seeds,
        erased: DiffusionModel,
        arms: ArmStore,
        drawing: Drawing,
        record: Recorder,
        deadline: Deadline,
    ) -> None:
        self.plan = plan
        self.policy = plan.policy
        self.probes = probes
        self.seeds = seeds
        self.erased = erased
        self.base = drawing.base
        self.arms = arms
        self.drawing = drawing
        self.record = record
        self.deadline = deadline
        self._original = Original(erased)
        self.captions: list[str] = []
        """What is trained on, as far as it is known."""

    def check_requests(self) -> None:
        """Refuse before anything is drawn what can be known to be wrong with a probe's training set
        (:class:`UsageError`), and note the captions that will be trained on."""
        captions: list[str] = []
        for number, _, name in self.plan.training:
            last = next(arm for arm in reversed(self.plan.arms) if arm.probe == number)
            if self.record.timed_out(last):
                continue
            self.record.current = last.name
            # a plugin that breaks becomes an error of its arms when they are made
            with contextlib.suppress(PluginError):
                wanted = ask_for_training_set(
                    self.probes[number], name, self.policy, self.seeds, has_base=self.base is not None
                )
                captions += captions_of(wanted)
        self.record.current = None
        self.captions = captions

    def compare(self) -> None:
        """Hold the checkpoint's text side against the base's, for every prompt and caption that is known
        so far."""
        if self.base is None:
            return
        compared = base_beside(self.base, self.erased, self.plan, self.captions)
        if compared.read_otherwise:
            self.record.progress.stage(
                f"out of reach: PASS: the tokenizer reads {compared.read_otherwise[0]!r} otherwise than the "
                "base's"
            )
        if self.record.tally.compared != compared:
            self.record.write(compared)

    def run(self, number: int, arms: Sequence[Arm]) -> None:
        """Every replicate of one probe; one that breaks becomes an error, the others go on."""
        use, name, probe = self.policy.probes[number], self.plan.probe_names[number], self.probes[number]
        self.drawing.check_stop()
        training: TrainingSet | None = None
        for replicate in range(1, use.replicates + 1):
            own = {arm.dose: arm for arm in arms if arm.replicate == replicate}
            last = own[use.doses[-1]]
            if self._is_closed(own) or any(self.record.timed_out(arm) for arm in own.values()):
                continue
            with self.record.breaking(last):
                if self._draw_kept(own):
                    continue
                training = training or self._training_set(probe, name)
                check_training(probe, training)
                if name not in self.record.tally.shams:
                    self._run_sham(probe, name, use, training)
                self._run_replicate(
                    probe, use, own, training, training_seed(self.seeds.audit, name, replicate)
                )

    def _is_closed(self, own: dict[int, Arm]) -> bool:
        """Is every dose made, and does none want another image?"""
        evidence = self.record.tally.evidence()
        made = all(
            arm.name in self.record.tally.arms and arm.name not in self.record.tally.broken
            for arm in own.values()
        )
        return made and not any(
            self.record.tally.failed_batches(arm.name) or turns(evidence, arm.name) for arm in own.values()
        )

    def _draw_kept(self, own: dict[int, Arm]) -> bool:
        """Draw from arms that an earlier call trained and kept. False where one of them is not there."""
        lines = [self.record.tally.arms.get(arm.name) for arm in own.values()]
        if any(
            line is None or not self.arms.path(line.weights).exists() or line.arm in self.record.tally.broken
            for line in lines
        ):
            return False
        for arm in own.values():
            model = self.kept(arm.name)
            if model is None:
                return False
            self.drawing.draw_arm(arm, model)
        return True

    def kept(self, arm: str) -> DiffusionModel | None:
        """An arm as an earlier call trained and kept it; None where its weights are not there, or not the
        ones that were drawn from."""
        model = self._original.fresh()
        return model if self.arms.restore(model, self.record.tally.arms[arm].weights) else None

    def _training_set(self, probe: WeightProbe, name: str) -> TrainingSet:
        self.record.progress.stage(f"training set of {name}")
        examples = None if self.base is None else self.drawing.base_examples
        training, line = make_training_set(
            probe, name, self.policy, self.seeds, examples, self.drawing.scorer.may_show
        )
        before = self.record.tally.training.get(name)
        changed = before is not None and before.digest != line.digest
        if changed and self.record.tally.training_on[name] == self.record.device:
            raise UsageError(
                f"The training set of {name} changed since the run began; audit again in a new folder."
            )
        if before is None or changed:  # the base draws it with other last bits on another kind of device
            self.record.write(line)
        new = {*training.captions, *training.held_out_captions} - set(self.captions)
        if new:  # of a probe that could not be asked before
            self.captions += sorted(new)
            self.compare()
        return training

    def _run_sham(self, probe: WeightProbe, name: str, use: ProbeUse, training: TrainingSet) -> None:
        """Train at learning rate 0 and draw a batch of the erased arm again: every image must be the same,
        bit for bit."""
        if not probe.has_sham:
            self.record.write(ShamLine(probe=name, images=0, different=0, applicable=False))
            return
        whole = self.drawing.whole_batches(
            ERASED, self.drawing.batch_size(self.plan.arm(ERASED), self.erased)
        )
        if not whole:
            return
        began, samples = time.monotonic(), max(whole, key=len)
        self.record.progress.stage(f"no-op control of {name}")
        model, who = self._original.fresh(), door.title(probe)
        allowed = allowed_changes(probe, use)
        on_step = self._signs_of_life(_SHAM_STEPS, door.call(probe, probe.training_calls, _SHAM_STEPS))
        update = Update(
            model, training.images.clone(), training.captions, use.method, (_SHAM_STEPS,), 0, True, on_step
        )
        different: int | None = None
        with closing(door.iterate(probe, door.call(probe, probe.update, update))) as steps:
            for dose in steps:
                if dose != _SHAM_STEPS or different is not None:
                    raise PluginError(
                        f"{who} reached {dose} training steps in its no-op control; {_SHAM_STEPS} are right."
                    )
                change = self._original.change(model, allowed, who, may_be_nothing=True)
                fresh = rebuilt(self._original, model, change, digest_of_arm(model))
                different = self.recheck().different(fresh, samples)
        if different is None:
            raise PluginError(f"{who} never ended its no-op control.")
        self.record.write(
            ShamLine(probe=name, images=len(samples), different=different, seconds=time.monotonic() - began)
        )

    def _run_replicate(
        self, probe: WeightProbe, use: ProbeUse, arms: dict[int, Arm], training: TrainingSet, seed: int
    ) -> None:
        """Train once, and draw every dose on the way."""
        last, least = arms[use.doses[-1]].name, self._least_change(probe, training)

        alive = self._signs_of_life(use.doses[-1], door.call(probe, probe.training_calls, use.doses[-1]))

        def on_step(step: int) -> None:
            alive(step)
            self.record.progress.step(last, step, use.doses[-1])

        with closing(
            train(probe, use, self._original, self.erased, training, seed, on_step, self.base)
        ) as doses:
            for reached in doses:
                arm, weights = arms[reached.dose], digest_of_arm(reached.model)
                self.arms.keep(reached.model, reached.change.tensors, weights)
                line = ArmLine(
                    arm=arm.name,
                    seconds=reached.seconds,
                    weights=weights,
                    fit=reached.fit,
                    fit_before=reached.fit_before,
                    fit_trained=reached.fit_trained,
                    fit_trained_before=reached.fit_trained_before,
                    change=reached.change.relative if math.isfinite(reached.change.relative) else None,
                    least_change=least,
                    put_back=probe.puts_back,
                    idle=bool(probe.puts_back) and not reached.change.tensors,
                )
                self.record.arm(line)
                self.drawing.draw_arm(arm, rebuilt(self._original, reached.model, reached.change, weights))

    def _signs_of_life(self, dose: int, calls: int) -> Callable[[int], None]:
        """What a probe calls after a training step: a sign of life where the step's number rises, and is
        one that the dose takes."""
        last, most = 0, max(dose, calls)

        def on_step(step: int) -> None:
            nonlocal last
            if isinstance(step, int) and last < step <= most:
                last = step
                WATCHDOG.alive()
            self.deadline.check()

        return on_step

    def _least_change(self, probe: WeightProbe, training: TrainingSet) -> float | None:
        """What an update without a training set must change at least; None where the held-out loss speaks
        for it."""
        if training.captions:
            return None
        least = door.call(probe, probe.least_change)
        if not isinstance(least, float) or not _ROUNDING <= least < float("inf"):
            raise PluginError(
                f"{door.title(probe)} trains on nothing and its least_change() is {least!r}; {_ROUNDING} or "
                "more is right."
            )
        return least

    def model_of(self, arm: str) -> DiffusionModel | None:
        """The model that an arm is drawn from; None where its weights were not kept."""
        weights = self.plan.arm(arm).weights
        if weights is Weights.UPDATED:
            return self.kept(arm)
        return self.erased if weights is Weights.ERASED else self.base

    def recheck(self) -> Recheck:
        """What looks again at the images of this run's models."""
        return Recheck(
            self.record.tally,
            self.drawing.pictures,
            self.drawing.scorer,
            self.drawing.draw,
            self.model_of,
        )
