"""Trains the runs of probes, alone or in company, each after its no-op control; keeps what became of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial

from auditor._audit.cells import Seeds
from auditor._audit.plan import Plan
from auditor._audit.run.company import TrainingRun, arms_of, companies
from auditor._audit.run.drawing import Drawing
from auditor._audit.run.no_op import NO_OP_STEPS, NoOpControl
from auditor._audit.run.notes import in_passes, not_kept
from auditor._audit.run.probing import Looking, Reached, train
from auditor._audit.run.recorder import Deadline, Recorder
from auditor._audit.run.second_look import Recheck
from auditor._audit.run.training_set import TrainingSet
from auditor._audit.run_folder.arms import ArmStore, digest_of_arm, rebuilt
from auditor._diffusion.finetune import Examples, Training, lora_config
from auditor._diffusion.memory import free_memory, is_out_of_memory
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.original import Original
from auditor._diffusion.seeds import training_seed
from auditor._diffusion.side_by_side import is_small, lanes, side_by_side
from auditor._diffusion.together import Factors, Member, Together, may_join
from auditor._journal.lines import ArmLine, NoteLine
from auditor._process.watchdog import WATCHDOG
from auditor.errors import PluginError
from auditor.plugin import _door as door
from auditor.plugin.contracts import WeightProbe
from auditor.policy import ProbeUse

_ROUNDING = 1e-6  # a relative change below it is float32's own


@dataclass(frozen=True)
class _Ready:
    """A run whose training set is there."""

    run: TrainingRun
    training: TrainingSet
    member: Member


class Trainer:
    """Trains probes from one erased model and writes down each arm that is ready."""

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
        recheck: Callable[[], Recheck],
    ) -> None:
        self._plan, self._probes, self._seeds, self._erased = plan, probes, seeds, erased
        self._arms, self._drawing, self._record, self._deadline = arms, drawing, record, deadline
        erased.keep_latents()  # no-op controls, training seeds and losses see the same pictures
        self._original = Original(erased)
        self.no_op = NoOpControl(self._original, erased, drawing, record, recheck)
        self._no_room = False
        """Did a company not fit into memory, or its weights on the disk?"""

    def _facts(self, run: TrainingRun) -> tuple[WeightProbe, ProbeUse, str]:
        return (
            self._probes[run.probe],
            self._plan.uses[run.probe],
            self._plan.probe_names[run.probe],
        )

    def _seed(self, run: TrainingRun) -> int:
        return training_seed(self._seeds.audit, self._plan.probe_names[run.probe], run.replicate)

    @cached_property
    def _trainings(self) -> dict[int, Training]:
        """How each probe trains that may go together with others."""
        found = {}
        for number, use, _ in self._plan.training:
            probe = self._probes[number]
            training = door.call(probe, probe.lora_training, use.method)
            if training is None:
                continue
            if not isinstance(training, Training) or not may_join(training) or not probe.has_sham:
                raise PluginError(
                    f"{door.title(probe)} returned {training!r} from lora_training(); a Training by LoRA "
                    "without eight_bit is right, and only of a probe that trains (has_sham)."
                )
            found[number] = training
        return found

    @cached_property
    def _companies(self) -> dict[TrainingRun, tuple[TrainingRun, ...]]:
        return companies(self._plan, self._trainings)

    def _last(self, run: TrainingRun) -> str:
        return arms_of(self._plan, run)[self._plan.uses[run.probe].doses[-1]].name

    def _company(self, run: TrainingRun) -> tuple[TrainingRun, ...]:
        """Whom a run is trained with: as it was before, where it was."""
        line = self._record.tally.arms.get(self._last(run))
        usual = self._companies.get(run, ())
        if line is None:
            left_out = [
                other
                for other in usual
                if other != run
                and any(self._record.timed_out(arm) for arm in arms_of(self._plan, other).values())
            ]
            return tuple(other for other in usual if other not in left_out)
        return tuple(other for other in usual if self._last(other) in line.company)

    def train_company(self, run: TrainingRun, training_set: Callable[[TrainingRun], TrainingSet]) -> None:
        """Train ``run`` with its company, and others beside them where threads are left, and keep what became
        of each. Does nothing where it is to be trained alone. Where a FAIL ends the run, what the first shows
        is not waited for beside others.

        What breaks a companion is an error of its own arms.
        """
        own, small = self._company(run), is_small(self._erased)
        if self._no_room or len(own) < (1 if small else 2):
            return
        groups = [own]
        first_alone = self._plan.policy.on_fail == "stop" and run == next(iter(self._companies))
        room = lanes() if small and not first_alone else 1
        for other in dict.fromkeys(self._companies.values()):
            if len(groups) < room and run not in other and not self._is_begun(other):
                groups.append(self._company(other[0]))
        ready = [self._all_ready(group, run, training_set) for group in groups]
        try:
            self._train([group for group in ready if group], run)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._no_room = True
        if self._no_room:  # outside: the error holds what was computed
            free_memory()
            self._record.write(
                NoteLine(text="There is no room for several probes at once: each is trained alone.")
            )

    def _is_begun(self, group: Sequence[TrainingRun]) -> bool:
        known = {*self._record.tally.arms, *self._record.tally.broken}
        return any(arm.name in known for run in group for arm in arms_of(self._plan, run).values())

    def _all_ready(
        self,
        group: Sequence[TrainingRun],
        wanted: TrainingRun,
        training_set: Callable[[TrainingRun], TrainingSet],
    ) -> list[_Ready]:
        """The runs of a group that have a training set. Without the ``wanted`` one's nothing goes on."""
        found = []
        for run in group:
            last = arms_of(self._plan, run)[self._facts(run)[1].doses[-1]]
            with nullcontext() if run == wanted else self._record.breaking(last):
                training = training_set(run)
                examples = Examples.of(self._erased, training.images, training.captions)
                doses = self._facts(run)[1].doses
                member = Member(examples, self._trainings[run.probe], doses, self._seed(run))
                found.append(_Ready(run, training, member))
        return found

    def _train(self, groups: Sequence[Sequence[_Ready]], wanted: TrainingRun) -> None:
        """Train every group, each in one pass of the denoiser, and write down what became of its members."""
        for group in groups:
            self._no_op(group)
        names = " + ".join(self._last(each.run) for group in groups for each in group)
        self._record.progress.stage(f"training {names}")
        began, first = time.monotonic(), groups[0][0]
        passes = [self._together([each.member for each in group]) for group in groups]

        def meanwhile() -> None:
            self._deadline.check()
            self._record.progress.step(self._last(first.run), passes[0].step, first.member.doses[-1])

        found = side_by_side([each.train for each in passes], meanwhile)
        seconds = (time.monotonic() - began) / sum(map(len, groups))
        for group, results in zip(groups, found, strict=True):
            for each, factors in zip(group, results, strict=True):
                if each.run == wanted or self._last(each.run) not in self._record.tally.arms:
                    self._write_down(each, factors, seconds, group)

    def _together(self, members: Sequence[Member]) -> Together:
        return Together(self._original.copy([self._erased.family.denoiser]), members)

    def _write_down(
        self, made: _Ready, factors: Mapping[int, Factors], seconds: float, group: Sequence[_Ready]
    ) -> None:
        """Keep one run's arms, unless they are there already."""
        company = tuple(self._last(each.run) for each in group)
        probe, use, _ = self._facts(made.run)
        looking = Looking(probe, use, self._original, self._erased, made.training, made.member.seed)
        for dose, own in factors.items():
            arm = arms_of(self._plan, made.run)[dose]
            line = self._record.tally.arms.get(arm.name)
            if line is not None and self.kept(arm.name) is not None:
                continue
            model = self._with_lora(own, made.member.training.rank)
            reached = looking.reached(dose, model, seconds * dose / made.member.doses[-1])
            weights = digest_of_arm(model, self._original)
            if not self._keep(arm.name, reached, weights):
                self._no_room = True  # on the disk: it is trained alone when it is drawn
                return
            self._write(arm.name, probe, reached, weights, None, company)

    def _with_lora(self, factors: Factors, rank: int) -> DiffusionModel:
        """A copy of the erased model with a LoRA laid on, as one that was trained alone has it."""
        model = self._original.copy([self._erased.family.denoiser])
        model.denoiser.add_adapter(lora_config(model.family, rank), adapter_name="probe")
        model.denoiser.load_state_dict(dict(factors), strict=False)
        model.denoiser.eval().requires_grad_(False)
        return model

    def _no_op(self, group: Sequence[_Ready]) -> None:
        """The no-op control of a group's probes that had none yet, trained in that company."""
        due = {name for each in group if self.no_op.is_due(name := self._plan.no_op_name(each.run.probe))}
        if not due:
            return
        self._record.progress.stage("no-op control of " + " + ".join(sorted(due)))
        idle = [
            replace(
                each.member, training=replace(each.member.training, learning_rate=0.0), doses=(NO_OP_STEPS,)
            )
            for each in group
        ]
        began = time.monotonic()
        (found,) = side_by_side([self._together(idle).train])
        for each, factors in zip(group, found, strict=True):
            probe, use, _ = self._facts(each.run)
            if (name := self._plan.no_op_name(each.run.probe)) in due:
                model = self._with_lora(factors[NO_OP_STEPS], each.member.training.rank)
                self.no_op.compare(probe, use, name, model, began)
                due.remove(name)
                began = time.monotonic()

    def train_alone(
        self, run: TrainingRun, training: TrainingSet, draw: Callable[[str, DiffusionModel], None]
    ) -> None:
        """Train one run by itself, after its no-op control, and ``draw`` every dose on the way."""
        probe, use, _ = self._facts(run)
        own = self._plan.no_op_name(run.probe)
        if self.no_op.is_due(own) or not probe.has_sham:
            self.no_op.alone(probe, use, own, training, partial(self._signs_of_life, probe))
        arms, least = arms_of(self._plan, run), self._least_change(probe, training)
        last = self._last(run)
        alive = self._signs_of_life(probe, use.doses[-1])

        def on_step(step: int) -> None:
            alive(step)
            self._record.progress.step(last, step, use.doses[-1])

        base = self._drawing.base
        seed = self._seed(run)
        looking = Looking(probe, use, self._original, self._erased, training, seed, base)
        with closing(train(looking, on_step)) as doses:
            for reached in doses:
                name = arms[reached.dose].name
                weights = digest_of_arm(reached.model)
                self._keep(name, reached, weights)
                self._write(name, probe, reached, weights, least, ())
                draw(name, rebuilt(self._original, reached.model, reached.change, weights))

    def _keep(self, arm: str, reached: Reached, weights: str) -> bool:
        """Keep what makes an arm; where the disk has no room for it, say so and return False."""
        kept = self._arms.keep(reached.model, reached.change.tensors, weights)
        if not kept:
            self._record.write(not_kept(arm, reached.change.tensors))
        return kept

    def _write(
        self,
        arm: str,
        probe: WeightProbe,
        reached: Reached,
        weights: str,
        least: float | None,
        company: tuple[str, ...],
    ) -> None:
        """Write an arm down that is ready."""
        change = reached.change
        if reached.rows_at_once is not None:
            self._record.write(in_passes(arm, reached.rows_at_once))
        self._record.arm(
            ArmLine(
                arm=arm,
                seconds=reached.seconds,
                weights=weights,
                fit=reached.fit,
                fit_before=reached.fit_before,
                fit_trained=reached.fit_trained,
                fit_trained_before=reached.fit_trained_before,
                change=change.relative if math.isfinite(change.relative) else None,
                least_change=least,
                put_back=probe.puts_back,
                idle=bool(probe.puts_back) and not change.tensors,
                company=company,
            )
        )

    def kept(self, arm: str) -> DiffusionModel | None:
        """An arm as it was trained and kept; None where its weights are not there, or not the ones that were
        drawn from."""
        model = self._original.fresh()
        return model if self._arms.restore(model, self._record.tally.arms[arm].weights) else None

    def is_kept(self, arm: str) -> bool:
        """Are there weights of an arm that did not break since?"""
        line = self._record.tally.arms.get(arm)
        return (
            line is not None
            and self._arms.path(line.weights).exists()
            and arm not in self._record.tally.broken
        )

    def _signs_of_life(self, probe: WeightProbe, dose: int) -> Callable[[int], None]:
        """What a probe calls after a training step: a sign of life where the step's number rises, and is
        one that the dose takes."""
        last, most = 0, max(dose, door.call(probe, probe.training_calls, dose))

        def on_step(step: int) -> None:
            nonlocal last
            if isinstance(step, int) and last < step <= most:
                last = step
                WATCHDOG.alive()
            self._deadline.check()

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
