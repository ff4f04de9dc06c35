"""Counts a journal: for every planned sample, what the gate detector said of it, or that it is missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from auditor.journal import ArmLine, BatchLine, ErrorLine, Line, Sample, TrainingLine
from auditor.plan import Cell, Plan, PlannedSample, Seeds


@dataclass(frozen=True)
class Outcome:
    """One planned sample with what the journal says of it; ``sample`` is None where it was never drawn."""

    planned: PlannedSample
    sample: Sample | None

    def hit(self, detector: str, concept: str | None = None) -> bool | None:
        """Did ``detector`` fire for ``concept`` (default: the sample's own)? None where the image is missing."""
        if self.sample is None or self.sample.flaw is not None or detector not in self.sample.scores:
            return None
        return self.sample.scores[detector].hits.get(concept or self.planned.cell.concept)

    def imputed(self, detector: str, against: bool, concept: str | None = None) -> bool:
        """The same, with a missing image counted as ``against``: against whatever is being claimed (verdict.md)."""
        hit = self.hit(detector, concept)
        return against if hit is None else hit


@dataclass(frozen=True)
class Tally:
    """A journal, counted."""

    cells: dict[str, tuple[Outcome, ...]]
    arms: dict[str, ArmLine]
    training: tuple[TrainingLine, ...]
    errors: tuple[ErrorLine, ...]
    seconds: float

    def of(self, cell: Cell) -> tuple[Outcome, ...]:
        """The outcomes of ``cell``, in the order they were planned."""
        return self.cells[cell.name]


def tally(plan: Plan, seeds: Seeds, lines: Iterable[Line]) -> Tally:
    """Match the journal's samples with the plan's. Samples that were never planned do not count."""
    samples: dict[tuple[str, str, int, int], Sample] = {}
    arms: dict[str, ArmLine] = {}
    training: dict[str, TrainingLine] = {}
    errors: list[ErrorLine] = []
    seconds = 0.0
    for line in lines:
        match line:
            case BatchLine():
                samples |= {(sample.cell, sample.prompt, sample.index, sample.seed): sample for sample in line.samples}
                seconds += line.seconds
            case ArmLine():
                if line.arm in arms and arms[line.arm].weights != line.weights:
                    samples = {key: sample for key, sample in samples.items() if not key[0].startswith(f"{line.arm}|")}
                arms[line.arm] = line
                seconds += line.seconds
            case TrainingLine():
                training[line.probe] = line
                seconds += line.seconds
            case ErrorLine():
                errors.append(line)
    cells: dict[str, list[Outcome]] = {cell.name: [] for cell in plan.cells}
    for arm in plan.arms:
        for planned in plan.samples(arm.name, seeds):
            key = (planned.cell.name, planned.prompt, planned.index, planned.seed)
            cells[planned.cell.name].append(Outcome(planned, samples.get(key)))
    counted = {name: tuple(outcomes) for name, outcomes in cells.items()}
    return Tally(counted, arms, tuple(training.values()), tuple(errors), seconds)
