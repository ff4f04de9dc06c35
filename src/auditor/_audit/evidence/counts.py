"""Counts a journal, line by line: for every planned sample what each detector said of it, for every arm how
it was made.

The run counts while it writes and the judge counts what was written, with the same code: both see the same
evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from auditor._audit.cells import Cell, PlannedSample, Role, Seeds
from auditor._audit.evidence.decisions import Decisions, Observations, asked_about
from auditor._audit.evidence.keys import Planned, key_of
from auditor._audit.evidence.sequential_tests import MISSING, Evidence, Outcomes
from auditor._audit.evidence.stopping import turns
from auditor._audit.evidence.updates import Made, made_of_updates
from auditor._audit.plan import Plan
from auditor._journal.lines import (
    ArmLine,
    BatchLine,
    ComparedLine,
    DistanceLine,
    EarlierLine,
    ErrorLine,
    HalvedLine,
    Line,
    MetricLine,
    NoteLine,
    RepeatLine,
    ReplayLine,
    Sample,
    ShamLine,
    StartLine,
    StopLine,
    TrainingLine,
)
from auditor.errors import AuditorError
from auditor.policy import Gate

Device = tuple[str, str]
"""A kind of device, and what the denoiser computes in on it. Images of two differ in their last bits."""


class Tally:
    """A journal, counted as far as it was added."""

    def __init__(self, plan: Plan, seeds: Seeds, gate: Gate | None = None) -> None:
        self.plan, self.seeds = plan, seeds
        self.decisions = Decisions(plan.policy, gate)
        self.arms: dict[str, ArmLine] = {}
        self.training: dict[str, TrainingLine] = {}
        self.training_on: dict[str, Device] = {}
        """The kind of device that drew each training set."""
        self.distances: dict[str, tuple[float, float]] = {}
        self.shams: dict[str, ShamLine] = {}
        self.broken: dict[str, ErrorLine] = {}
        """Arms that could not be made or drawn, and were not since."""
        self.metrics: dict[tuple[str, str], MetricLine] = {}
        """By arm and metric: the latest."""
        self.notes: list[str] = []
        """What went wrong and no verdict rests on."""
        self.silenced: set[str] = set()
        """``observers`` or ``metrics`` that hung once."""
        self.voided: set[str] = set()
        """Arms that were made twice, to different weights."""
        self.batches: dict[str, int] = {}
        """Batch sizes of arms that ran out of memory."""
        self.stopped: str | None = None
        self.replay: ReplayLine | None = None
        self.compared: ComparedLine | None = None
        self.repeat: RepeatLine | None = None
        """Of after the last arm: what is drawn or made later calls for another."""
        self.earlier: EarlierLine | None = None
        """Of the process at hand: each looks for itself at what others left."""
        self.manifest: str | None = None
        """sha256 of the manifest that the last process found or wrote."""
        self.earlier_batches: list[BatchLine] = []
        """What processes before the one at hand drew."""
        self.devices: dict[Device, None] = {}
        """Every kind of device that drew or trained, in order."""
        self.under_several_seeds: dict[str, int] = {}
        """Images that stand for more than one prompt and seed, and for how many."""
        self.seconds = 0.0
        self._planned = {cell.name: Planned(tuple(cell.samples(seeds))) for cell in plan.cells}
        self._drawn: dict[str, list[Sample | None]] = {cell.name: [None] * cell.images for cell in plan.cells}
        self._tables: dict[str, Outcomes] = {
            cell.name: np.full((cell.images, len(plan.columns)), MISSING, np.int8) for cell in plan.cells
        }
        self._filled = dict.fromkeys(self._planned, 0)
        self._lines: dict[str, list[BatchLine]] = {arm.name: [] for arm in plan.arms}
        self._device: Device = ("", "")
        self._drawn_on: dict[str, list[Device]] = {arm.name: [] for arm in plan.arms}
        self._arm_of = {cell.name: cell.arm for cell in plan.cells}
        self._drawn_from: dict[str, set[tuple[str, int]]] = {}
        erased, retained = (
            {concept.name for concept in group} for group in (plan.policy.erase, plan.policy.retain)
        )
        self._asked = {
            cell.name: erased | retained if cell.role is Role.RETAINED else erased for cell in plan.cells
        }

    def add(self, line: Line) -> None:
        """Count one more line. Samples that were never planned, or stand in the journal already, do not
        count."""
        if not isinstance(line, ReplayLine | NoteLine | StartLine | RepeatLine | EarlierLine):
            self.stopped = None
        if isinstance(line, BatchLine | ArmLine):
            self.repeat = None
        if isinstance(line, BatchLine | ShamLine | ArmLine | TrainingLine):
            self.devices[self._device] = None
        match line:
            case StartLine():
                self.earlier_batches = [batch for lines in self._lines.values() for batch in lines]
                self.earlier, self.manifest = None, line.manifest
                self._device = (line.device, line.precision)
            case ComparedLine():
                self.compared = line
            case RepeatLine():
                self.repeat = line
            case EarlierLine():
                self.earlier = line
            case BatchLine():
                self._add_batch(line)
            case ArmLine():
                if line.arm in self.arms and self.arms[line.arm].weights != line.weights:
                    self._void(line.arm)
                    self.voided.add(line.arm)
                self.arms[line.arm] = line
                self.broken.pop(line.arm, None)
            case DistanceLine():
                self.distances = line.parts
            case TrainingLine():
                self.training[line.probe] = line
                self.training_on[line.probe] = self._device
            case ShamLine():
                self.shams[line.probe] = line
            case ErrorLine():
                self.broken[line.arm] = line
            case NoteLine():
                self.notes += [line.text] if line.text not in self.notes else []
                self.silenced |= {line.silenced} if line.silenced else set()
            case MetricLine():
                self.metrics[line.arm, line.metric] = line
            case HalvedLine():
                self.batches[line.arm] = line.batch
            case StopLine():
                self.stopped = line.reason
            case ReplayLine():
                self.replay = line
        self.seconds += getattr(line, "seconds", 0.0)

    def seconds_of(self, cell: Cell) -> float:
        """Time spent on a cell's images: each has an equal share of its batch."""
        shares = (
            (line.seconds / len(line.samples), line.samples) for line in self._lines[cell.arm] if line.samples
        )
        return sum(share * sum(sample.cell == cell.name for sample in samples) for share, samples in shares)

    def _add_batch(self, line: BatchLine) -> None:
        self._refuse_damage(line)
        self._lines[line.arm].append(line)
        self._drawn_on[line.arm].append(self._device)
        for sample in line.samples:
            if sample.image is not None:
                sources = self._drawn_from.setdefault(sample.image, set())
                sources.add((sample.prompt, sample.seed))
                if len(sources) > 1:
                    self.under_several_seeds[sample.image] = len(sources)
            place = (
                self._planned[sample.cell].place.get(key_of(sample)) if sample.cell in self._planned else None
            )
            if place is None:
                continue
            drawn = self._drawn[sample.cell]
            before = drawn[place]
            if before is not None and before.error is None:
                continue
            drawn[place] = sample
            self._tables[sample.cell][place] = self._row(sample, self.decisions.decided)
            while self._filled[sample.cell] < len(drawn) and drawn[self._filled[sample.cell]] is not None:
                self._filled[sample.cell] += 1

    def _refuse_damage(self, line: BatchLine) -> None:
        """Raise :class:`AuditorError` at what no run writes: an arm or a cell of none, or answers to other
        questions than were asked."""
        where = "The journal is damaged: it holds"
        if line.arm not in self._lines:
            raise AuditorError(
                f"{where} a batch of the model state {line.arm[:60]!r}, which the plan has not; audit again "
                "in a new folder."
            )
        for sample in line.samples:
            arm = self._arm_of.get(sample.cell)
            if arm is not None and arm != line.arm:
                raise AuditorError(
                    f"{where} a sample of {arm} in a batch of {line.arm}; audit again in a new folder."
                )
            for name, said in sample.observations.items() if arm is not None else ():
                if (concepts := asked_about(said)) is not None and concepts != self._asked[sample.cell]:
                    raise AuditorError(
                        f"{where} answers of '{name[:60]}' about concepts that were not asked; audit again "
                        "in a new folder."
                    )

    def _row(self, sample: Sample | None, sees: Callable[[Observations, str], int]) -> Outcomes:
        row = np.full(len(self.plan.columns), MISSING, np.int8)
        if sample is not None and sample.observations:
            for concept in self._asked[sample.cell]:
                row[self.plan.columns[concept]] = sees(sample.observations, concept)
        return row

    def _void(self, arm: str) -> None:
        for cell in self.plan.cells_of(arm):
            self._drawn[cell.name] = [None] * cell.images
            self._tables[cell.name].fill(MISSING)
            self._filled[cell.name] = 0
        self._lines[arm], self._drawn_on[arm] = [], []

    # -- what was counted ------------------------------------------------------------------------------------

    def evidence(self) -> Evidence:
        """What the samples drawn so far say. A sample that is missing in the middle ends what a cell is
        read by."""
        tables = {name: table[: self._filled[name]] for name, table in self._tables.items()}
        return Evidence(self.plan, self.seeds, tables, self.made)

    def evidence_of(self, detector: str) -> Evidence:
        """The same as another detector answered."""
        tables = {}
        for name, table in self._tables.items():
            tables[name] = np.full_like(table[: self._filled[name]], MISSING)
            for place, sample in enumerate(self._drawn[name][: self._filled[name]]):
                tables[name][place] = self._row(sample, partial(self.decisions.of, detector))
        return Evidence(self.plan, self.seeds, tables, self.made)

    @property
    def made(self) -> dict[str, Made]:
        """What became of the model of each update of the population."""
        updates, least = self.plan.policy.updates, self.plan.policy.limits.min_fit
        if updates is None:
            return {}
        broken = {*self.broken, *self.voided}
        parts = {} if self.compared is None else self.compared.parts
        same = [name for name, distance in parts.items() if distance == 0]
        alpha = updates.claim.alpha_in
        return made_of_updates(self.plan, self.arms, broken, same, alpha=alpha, least=least)

    def drawn(self, cell: Cell) -> tuple[Sample, ...]:
        """The samples of a cell that were drawn, in order."""
        return tuple(sample for sample in self._drawn[cell.name] if sample is not None)

    def planned(self, cell: Cell) -> tuple[PlannedSample, ...]:
        """All samples of a cell, in order."""
        return self._planned[cell.name].samples

    def next_batch(self, evidence: Evidence, arm: str, size: int) -> list[PlannedSample]:
        """The next samples of an arm in the order of its turns
        (:func:`~auditor._audit.evidence.stopping.turns`): the same after a resume as without one."""
        batch: list[PlannedSample] = []
        for cell, turn in turns(evidence, arm):
            places = range(turn * cell.size, (turn + 1) * cell.size)
            batch += [
                self._planned[cell.name].samples[place]
                for place in places
                if self._drawn[cell.name][place] is None
            ]
            if len(batch) >= size:
                break
        return batch[:size]

    def missing_before(self, cell: Cell, rounds: int) -> list[PlannedSample]:
        """What is not drawn of a cell's first ``rounds`` rounds."""
        samples, drawn = self._planned[cell.name].samples, self._drawn[cell.name]
        return [
            samples[place] for place in range(min(rounds * cell.size, cell.images)) if drawn[place] is None
        ]

    def failed_batches(self, arm: str) -> list[list[PlannedSample]]:
        """Batches with samples that were drawn and could not be scored, in their original composition."""
        broken = [
            line for line in self._lines[arm] if any(self._is_unscored(sample) for sample in line.samples)
        ]
        latest = {tuple(key_of(sample) for sample in line.samples): line for line in broken}
        return [self.composition(line) for line in latest.values()]

    def timed_out(self, arm: str, patience: float | None) -> bool:
        """Was a plugin silent in this arm for as long as it would be waited for now?"""
        line = self.broken.get(arm)
        return (
            line is not None
            and line.timeout is not None
            and patience is not None
            and patience <= line.timeout
        )

    def batch_lines(self, arm: str, device: Device | None = None) -> list[BatchLine]:
        """Every batch of an arm, as it was drawn; those of one kind of device."""
        drawn = zip(self._lines[arm], self._drawn_on[arm], strict=True)
        return [line for line, on in drawn if device is None or on == device]

    def all_batches(self) -> list[BatchLine]:
        """Every batch of every arm."""
        return [line for lines in self._lines.values() for line in lines]

    def planned_for(self, sample: Sample) -> PlannedSample:
        """What was planned where ``sample`` stands. Raises :class:`AuditorError` where nothing was."""
        cell = self._planned.get(sample.cell)
        place = cell.place.get(key_of(sample)) if cell else None
        if cell is None or place is None:
            raise AuditorError(
                f"The journal holds a sample that was never planned ({sample.cell[:100]}); audit again in a "
                "new folder."
            )
        return cell.samples[place]

    def asked(self, sample: Sample) -> set[str]:
        """The concepts that detectors were asked about, of an image."""
        return self._asked[sample.cell]

    def composition(self, line: BatchLine) -> list[PlannedSample]:
        """The planned samples of a batch, in the order they were drawn in."""
        found = [(self._planned[s.cell], key_of(s)) for s in line.samples if s.cell in self._planned]
        return [cell.samples[cell.place[key]] for cell, key in found if key in cell.place]

    def _is_unscored(self, sample: Sample) -> bool:
        cell = self._planned.get(sample.cell)
        place = cell.place.get(key_of(sample)) if cell else None
        drawn = self._drawn[sample.cell][place] if place is not None else None
        return drawn is not None and drawn.error is not None


def tally(plan: Plan, seeds: Seeds, lines: Iterable[Line], gate: Gate | None = None) -> Tally:
    """Count a whole journal; with ``gate`` as another gate than the policy's would decide."""
    counted = Tally(plan, seeds, gate)
    for line in lines:
        counted.add(line)
    return counted
