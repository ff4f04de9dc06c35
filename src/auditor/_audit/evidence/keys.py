"""What a sample is counted by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from auditor._audit.cells import PlannedSample
from auditor._journal.lines import Sample

Key = tuple[str, str, int, int]
"""What tells one sample from another: cell, prompt, index, seed."""


def key_of(sample: Sample | PlannedSample) -> Key:
    """The key of a sample, planned or drawn."""
    cell = sample.cell if isinstance(sample, Sample) else sample.cell.name
    return cell, sample.prompt, sample.index, sample.seed


@dataclass(frozen=True)
class Planned:
    """A cell's samples in order, and the place of each."""

    samples: tuple[PlannedSample, ...]

    @cached_property
    def place(self) -> dict[Key, int]:
        """Where in the order each sample stands."""
        return {key_of(sample): number for number, sample in enumerate(self.samples)}
