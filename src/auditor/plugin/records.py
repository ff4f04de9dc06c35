"""Frozen records that observers get; they cannot change anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from auditor._journal.lines import Sample
    from auditor.report import Report


@dataclass(frozen=True)
class RunStarted:
    """A run begins or goes on: what is audited, under which policy (sha256), the arms to come, and its
    folder."""

    title: str
    checkpoint: str
    policy: str
    arms: tuple[str, ...]
    folder: Path


@dataclass(frozen=True)
class ArmReady:
    """An arm's weights are made; ``seconds`` is what making them took."""

    arm: str
    weights: str
    seconds: float


@dataclass(frozen=True)
class BatchMeasured:
    """A batch was drawn, scored and written to the journal."""

    arm: str
    samples: tuple[Sample, ...]
    seconds: float


@dataclass(frozen=True)
class ReportWritten:
    """The report is in the run's folder."""

    report: Report
    folder: Path
