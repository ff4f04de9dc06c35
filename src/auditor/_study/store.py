"""What is kept of studies: outcomes, images, checkpoints and features by identity. Several processes may work
on one store.

``records/<key>.json``       outcomes of an arm (whole or not there)
``checkpoints/<key>/``       an erased checkpoint, as ``auditor erase --save delta`` writes it
``pictures/``                images by identity, so that what was drawn is never drawn again
``arms/<key>.json``          how an arm was made
``metrics/<key>.json``       a metric of an arm
``features/<key>.npz``       what metrics are computed from
``failures/<key>.txt``       why an arm could not be measured; removed when it was
``locks/<key>``              who is at work
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationError

from auditor._files.places import lock
from auditor._files.whole_files import write_whole
from auditor._journal.lines import Record


class Outcome(Record):
    """One image and what was said of it, in the order of the set's samples."""

    flaw: str | None = None
    """Why it counts as missing: ``not finite``, ``blank``, ``noise``."""
    hits: dict[str, bool] = Field(default_factory=dict)
    """Does each detector see the image's own concept? Of erased and retained concepts and of the seed 0
    grid."""
    score: float | None = None
    """The first detector's score for that concept."""
    label: str = ""
    """The first detector's first choice."""


class MetricValue(Record):
    """A metric of an arm, with its interval (bootstrap over prompts)."""

    images: int
    value: float
    lower: float
    upper: float


class ArmRecord(Record):
    """The outcomes of one arm. It knows nothing of what a study calls it."""

    outcomes: tuple[Outcome, ...]
    weights: str | None = None
    """sha256 of UNet and text encoder, where they were in memory."""
    making: float = 0.0
    """Seconds of erasing or training."""
    drawing: float = 0.0
    scoring: float = 0.0
    fit_before: float | None = None
    """Mean held-out denoising loss of the probe's own captions before it, and after it."""
    fit: float | None = None
    change: float | None = None
    """Relative L2 norm of what the probe changed."""
    distances: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """Of an erased checkpoint from its base: relative L2 distance and cosine, by part."""
    trained_on: tuple[str, ...] = ()


def seen(record: ArmRecord) -> tuple[int, int]:
    """Images of concepts that the first detector saw theirs in, and images it was asked about."""
    asked = [next(iter(outcome.hits.values())) for outcome in record.outcomes if outcome.hits]
    return sum(asked), len(asked)


class StudyProgress:
    """Told of every event of a study; this one says nothing."""

    def unit(self, title: str, done: int, total: int) -> None:
        """A unit of work begins; ``done`` of ``total`` are over."""

    def waiting(self, units: int) -> None:
        """Nothing is left to take; other processes are at work on ``units``."""

    def step(self, what: str, step: int, steps: int) -> None:
        """Within it: training steps, images."""

    def arm(self, title: str, record: ArmRecord) -> None:
        """An arm was measured."""

    def failed(self, title: str, message: str) -> None:
        """An arm broke; the others go on."""


class Store:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pictures = folder / "pictures"

    def checkpoint(self, key: str) -> Path:
        """Where an erased checkpoint is kept."""
        return self.folder / "checkpoints" / key

    def read(self, key: str) -> ArmRecord | None:
        """The outcomes kept under ``key``; None where there are none, or none that can be read."""
        path = self.folder / "records" / f"{key}.json"
        try:
            return ArmRecord.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def has(self, key: str) -> bool:
        """Are there outcomes under ``key`` that can be read?"""
        return self.read(key) is not None

    def write(self, key: str, record: ArmRecord) -> None:
        """Keep outcomes under ``key``."""
        write_whole(self.folder / "records" / f"{key}.json", record.model_dump_json().encode())
        (self.folder / "failures" / f"{key}.txt").unlink(missing_ok=True)

    def facts(self, key: str) -> dict[str, Any] | None:
        """How the arm ``key`` was made, where it was, whatever was measured of it."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "arms" / f"{key}.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return found

    def keep_facts(self, key: str, facts: Mapping[str, Any]) -> None:
        """Keep how the arm ``key`` was made."""
        write_whole(self.folder / "arms" / f"{key}.json", json.dumps(facts).encode())

    def fail(self, key: str, message: str) -> None:
        """Keep why there are no outcomes under ``key``."""
        write_whole(self.folder / "failures" / f"{key}.txt", message.encode())

    def failure(self, key: str) -> str | None:
        """Why there are no outcomes under ``key``, where it was tried."""
        path = self.folder / "failures" / f"{key}.txt"
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def metric(self, key: str) -> MetricValue | None:
        """The metric kept under ``key``."""
        try:
            return MetricValue.model_validate_json((self.folder / "metrics" / f"{key}.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def keep_metric(self, key: str, value: MetricValue) -> None:
        """Keep a metric under ``key``."""
        write_whole(self.folder / "metrics" / f"{key}.json", value.model_dump_json().encode())
        (self.folder / "failures" / f"{key}.txt").unlink(missing_ok=True)

    def features(self, key: str) -> np.ndarray | None:
        """A metric's features, a row an image."""
        path = self.folder / "features" / f"{key}.npz"
        try:
            with np.load(path) as held:
                rows: np.ndarray = held["rows"]
                return rows
        except (OSError, ValueError, KeyError):
            return None

    def keep_features(self, key: str, rows: np.ndarray) -> None:
        """Keep a metric's features."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, rows=rows)
        write_whole(self.folder / "features" / f"{key}.npz", buffer.getvalue())

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Hold ``key`` for this process; False where another one has it."""
        path = self.folder / "locks" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            yield lock(file) is not False

    def has_locks(self) -> bool:
        """Can several processes share the work?"""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".lock.") as file:
            return lock(file) is not None
