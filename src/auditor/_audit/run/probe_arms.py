"""Makes and draws the arms of each probe: asks for its training set, has it trained, draws what it became."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from auditor._audit.cells import Arm, Seeds, Weights
from auditor._audit.evidence.stopping import turns
from auditor._audit.plan import Plan
from auditor._audit.run.company import TrainingRun
from auditor._audit.run.drawing import Drawing
from auditor._audit.run.probing import check_training
from auditor._audit.run.recorder import Deadline, Recorder
from auditor._audit.run.second_look import Recheck, base_beside
from auditor._audit.run.trainer import Trainer
from auditor._audit.run.training_set import (
    Choice,
    TrainingSet,
    ask_for_training_set,
    captions_of,
    make_training_set,
)
from auditor._audit.run_folder.arms import ArmStore
from auditor._diffusion.model import DiffusionModel
from auditor.errors import PluginError, UsageError
from auditor.plugin.contracts import WeightProbe


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
        self.drawing = drawing
        self.record = record
        self.trainer = Trainer(plan, probes, seeds, erased, arms, drawing, record, deadline, self.recheck)
        self._sets: dict[int, TrainingSet] = {}
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
                    self.probes[number],
                    name,
                    self.policy,
                    self._choice(number),
                    has_base=self.base is not None,
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
        use = self.plan.uses[number]
        for replicate in range(1, use.replicates + 1):
            own = {arm.dose: arm for arm in arms if arm.replicate == replicate}
            last = own[use.doses[-1]]
            if self._is_closed(own) or any(self.record.timed_out(arm) for arm in own.values()):
                continue
            with self.record.breaking(last):
                if self._draw_kept(own):
                    continue
                self.drawing.check_stop()
                run = TrainingRun(number, replicate)
                self.trainer.train_company(run, self._training_set)
                if not self._draw_kept(own):
                    self.trainer.train_alone(run, self._training_set(run), self._draw)
        self._sets.pop(number, None)

    def _draw(self, arm: str, model: DiffusionModel) -> None:
        self.drawing.draw_arm(self.plan.arm(arm), model)

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
        """Draw from arms that were trained before and kept. False where one of them is not there."""
        if not all(self.trainer.is_kept(arm.name) for arm in own.values()):
            return False
        for arm in own.values():
            model = self.trainer.kept(arm.name)
            if model is None:
                return False
            self.drawing.draw_arm(arm, model)
        return True

    def _training_set(self, run: TrainingRun) -> TrainingSet:
        """What a run trains on: made once for all runs of its probe."""
        if run.probe not in self._sets:
            probe = self.probes[run.probe]
            training = self._make_training_set(probe, run.probe)
            check_training(probe, training)
            self._sets[run.probe] = training
        return self._sets[run.probe]

    def _choice(self, number: int) -> Choice:
        """What a probe's training set hangs on: of an update what was drawn for it."""
        place = number - len(self.policy.probes)
        if place < 0:
            return Choice.usual(self.seeds, self.probes[number])
        update = self.plan.updates[place]
        return Choice(update.choice, update.first_image)

    def _make_training_set(self, probe: WeightProbe, number: int) -> TrainingSet:
        name = self.plan.probe_names[number]
        self.record.progress.stage(f"training set of {name}")
        examples = None if self.base is None else self.drawing.base_examples
        training, line = make_training_set(
            probe,
            name,
            self.policy,
            self.seeds,
            self._choice(number),
            examples,
            self.drawing.scorer.may_show,
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

    def model_of(self, arm: str) -> DiffusionModel | None:
        """The model that an arm is drawn from; None where its weights were not kept."""
        weights = self.plan.arm(arm).weights
        if weights is Weights.UPDATED:
            return self.trainer.kept(arm)
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
