"""Draws what the plan lays out, arm after arm, until the evidence decides: the only part that changes models.

Writes journal, images and trained arms, and nothing else. The erased model is never given away: each probe
changes a copy, and what it changed is looked at before an image is drawn from it. An arm that breaks becomes
an error in the journal; the others go on, and PASS is out of reach. What to draw next depends on the journal
alone, so a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from auditor._audit.cells import BASE, ERASED, Arm, Seeds
from auditor._audit.evidence.counts import Tally
from auditor._audit.evidence.share import wants_more
from auditor._audit.evidence.stopping import drawn_for
from auditor._audit.plan import Plan
from auditor._audit.run.drawing import Drawing
from auditor._audit.run.probe_arms import ProbeArms
from auditor._audit.run.recorder import Deadline, Recorder, Stop
from auditor._audit.run.second_look import known_positives
from auditor._audit.run_folder.arms import ArmStore
from auditor._diffusion.geometry import weight_distances
from auditor._diffusion.model import DiffusionModel, digest_of_weights
from auditor._journal.lines import ArmLine, BatchLine, DistanceLine, StopLine
from auditor._process.watchdog import WATCHDOG
from auditor.errors import RefusedError
from auditor.plugin.contracts import WeightProbe
from auditor.plugin.instruments import Instruments
from auditor.plugin.records import RunStarted


class Runner:
    """One run: the order of its arms, and when it ends."""

    def __init__(
        self,
        plan: Plan,
        instruments: Instruments,
        seeds: Seeds,
        erased: DiffusionModel,
        base: DiffusionModel | None,
        folder: Path,
        cache: Path | None,
        record: Recorder,
    ) -> None:
        self.plan = plan
        self.policy = plan.policy
        self.seeds = seeds
        self.erased = erased
        self.base = base
        self.record = record
        self._spent_before = record.tally.seconds
        self.deadline = Deadline(self.policy.budget.minutes, self._spent_before)
        self.drawing = Drawing(plan, instruments, base, folder, cache, record, self.deadline)
        arms = ArmStore(folder / "arms")
        training = {
            number: probe
            for number, probe in enumerate(instruments.all_probes)
            if isinstance(probe, WeightProbe)
        }
        self.probes = ProbeArms(plan, training, seeds, erased, arms, self.drawing, record, self.deadline)

    def run(self, started: RunStarted) -> Tally:
        """Draw and score what the journal so far leaves undecided. Returns the whole journal, counted."""
        self.deadline.begin()
        if self.record.is_of_another_manifest:
            self.record.start()
        with self._watched():
            self.record.tell("auditor_run_started", started)
            self._run_arms()
        return self.record.tally

    def _watched(self) -> contextlib.AbstractContextManager[None]:
        minutes = self.policy.budget.plugin_minutes
        return WATCHDOG.waiting(None if minutes is None else 60 * minutes, self.record.time_out)

    def _run_arms(self) -> None:
        self.probes.check_requests()
        self.probes.compare()
        if self.base is not None and not self.record.tally.distances:
            distances = weight_distances(self.base, self.erased)
            read = [
                [digest_of_weights(model.parts[name]) for name in model.family.text]
                for model in (self.base, self.erased)
            ]
            if distances[self.erased.family.denoiser][0] == 0 and read[0] == read[1]:
                raise RefusedError("The checkpoint is its base, value by value: nothing was erased.")
            self.record.write(DistanceLine(parts=distances))
        try:
            self.drawing.check_stop()
            for name in (BASE, ERASED):
                if name != BASE or self.base is not None:
                    self._draw_as_it_is(self.plan.arm(name))
                if name == BASE:
                    self.drawing.scorer.remember(known_positives(self.record.tally, self.drawing.pictures))
            for number, probe in enumerate(self.plan.probes[: len(self.policy.probes)]):
                own = [arm for arm in self.plan.arms if arm.probe == number]
                if probe.kind == "weights":
                    self.probes.run(number, own)
                else:
                    for arm in own:
                        self._draw_as_it_is(arm)
            self._run_updates()
            self._repeat()
        except Stop as stop:
            if self.record.tally.stopped != str(stop):
                unwritten = self.deadline.since - (self.record.tally.seconds - self._spent_before)
                self.record.write(StopLine(reason=str(stop), seconds=max(0.0, unwritten)))
            self.record.progress.stopped(str(stop))

    def _run_updates(self) -> None:
        """The population, update by update in the order in which they were drawn, until what is claimed of it
        is decided."""
        for update in self.plan.updates:
            if not wants_more(self.record.tally.evidence()):
                return
            arm = self.plan.arm(update.name)
            assert arm.probe is not None
            self.probes.run(arm.probe, [arm])

    def _draw_as_it_is(self, arm: Arm) -> None:
        """An arm of the base's or the erased weights, in the way that it is sampled and asked."""
        model = self.probes.model_of(arm.name)
        assert model is not None
        if not self.record.timed_out(arm):
            if arm.name not in self.record.tally.arms or arm.name in self.record.tally.broken:
                self.record.arm(ArmLine(arm=arm.name, seconds=0.0, weights=model.digest))
            for name in drawn_for(arm):
                self.drawing.draw_arm(self.plan.arm(name), model)

    def _repeat(self) -> None:
        """After the last arm: what was seen and drawn first, once more (:class:`RepeatLine`)."""
        if self.base is None:
            return
        again = self.drawing.smallest_batch(ERASED, self.erased)
        before = self.record.tally.repeat
        if before is None or (
            again is not None and not before.drawn
        ):  # of another kind of device nothing is drawn again
            self.record.progress.stage("looking again at what was seen and drawn first")
            self.record.write(self.probes.recheck().repeat(again, self.seeds.audit))

    @property
    def has_earlier(self) -> bool:
        """Does the verdict rest on what other processes wrote?"""
        return bool(self._earlier())

    def _earlier(self) -> list[BatchLine]:
        lines = self.record.tally.earlier_batches if self.record.started else self.record.tally.all_batches()
        return [line for line in lines if line.samples]

    def check_earlier(self, *, sealed: bool) -> None:
        """Look at what earlier processes left, before this one may say PASS (:class:`EarlierLine`).

        ``sealed``: every line before carries this gate's own seal, so there is nobody else's evidence to look
        at. Another kind of device cannot look: it only says that there is a process that did not.
        """
        if not sealed and self.record.tally.devices.keys() - {self.record.device}:
            if not self.record.started:
                self.record.start()
            return
        lines = self._earlier()
        with self._watched():
            self.record.progress.stage(
                f"looking again at {sum(len(line.samples) for line in lines)} images of earlier processes"
            )
            self.record.write(self.probes.recheck().earlier(lines, sealed=sealed))
