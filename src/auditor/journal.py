"""The append-only record of a run: one line, one sync, for each batch drawn and scored, arm made, or failure."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from auditor.errors import AuditorError, UsageError


class Record(BaseModel):
    """A line of the journal: frozen, strict in its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Score(Record):
    """What one detector said of one image."""

    label: str
    hits: dict[str, bool]
    """For every concept it was asked about: did the detector fire?"""
    score: float = Field(ge=0, le=1)
    """Its score for the sample's own concept."""
    found: bool | None = None
    """Was there anything to judge (a face)? None: this detector does not say."""


class Sample(Record):
    """One image: where it belongs, what it was drawn from, and what each detector said."""

    cell: str
    prompt: str
    index: int
    seed: int
    image: str | None
    """sha256 of the PNG file under ``images/``; None where nothing usable was drawn."""
    flaw: str | None = None
    """Why the image counts as missing, after one more try: ``not finite``, ``blank``, ``noise``."""
    error: str | None = None
    """Why it was not scored: a detector raised or broke its contract. Tried again when the run goes on."""
    scores: dict[str, Score] = {}


class BatchLine(Record):
    """A batch that was drawn and scored. Its samples lie in the order they were drawn in."""

    kind: Literal["batch"] = "batch"
    arm: str
    samples: tuple[Sample, ...]
    seconds: float
    cached: bool = False


class DistanceLine(Record):
    """How far the audited weights lie from the base's: (relative L2, cosine) of each part of the UNet."""

    kind: Literal["distance"] = "distance"
    parts: dict[str, tuple[float, float]]


class ArmLine(Record):
    """An arm that is ready, with what is known of how it was made."""

    kind: Literal["arm"] = "arm"
    arm: str
    seconds: float
    weights: str
    """Digest of the UNet's weights. Images drawn earlier from other weights of the same arm do not count."""
    fit: tuple[float, ...] = ()
    """Held-out denoising losses after the update, one per example."""
    fit_before: tuple[float, ...] = ()
    change: float | None = None
    """Relative L2 norm of what the update changed in UNet and text encoder."""
    least_change: float | None = None
    """Of an update that trains on nothing: the change from which on it counts as applied."""


class TrainingLine(Record):
    """A probe's training set: what is in it and how often a detector saw an erased concept in it."""

    kind: Literal["training"] = "training"
    probe: str
    concepts: tuple[str, ...]
    images: int
    forbidden_hits: dict[str, int]
    digest: str
    """Of all images and captions, the held-out ones among them."""
    seconds: float


class ShamLine(Record):
    """The control ``sham`` of a probe: its training at learning rate 0, then a batch of the erased arm drawn again."""

    kind: Literal["sham"] = "sham"
    probe: str
    images: int
    different: int
    """How many images were not the erased arm's bit for bit."""
    applicable: bool = True
    seconds: float = 0.0


class ErrorLine(Record):
    """An arm that was planned and could not be made or drawn. It puts PASS out of reach until the arm is made after all."""

    kind: Literal["error"] = "error"
    arm: str
    message: str
    timeout: float | None = None
    """Of a plugin that was silent for this many seconds. It is not called for this arm again, unless it is given more time."""


class NoteLine(Record):
    """Something that went wrong and that no verdict rests on: an observer or a metric that raised."""

    kind: Literal["note"] = "note"
    text: str
    silenced: str | None = None
    """``observers`` or ``metrics`` that were silent for too long and are not called again in this run."""


class MetricLine(Record):
    """A metric of an arm's retained images: its value with a 95 % interval (bootstrap over prompts)."""

    kind: Literal["metric"] = "metric"
    arm: str
    metric: str
    images: int
    value: float
    lower: float
    upper: float
    seconds: float


class HalvedLine(Record):
    """Memory ran out: this arm's batches are half as large from here on."""

    kind: Literal["halved"] = "halved"
    arm: str
    batch: int


class StopLine(Record):
    """The run ended before everything was decided; what is open was skipped for this reason."""

    kind: Literal["stop"] = "stop"
    reason: str
    seconds: float = 0.0
    """Spent on what no other line holds, such as training that was cut short."""


class ReplayLine(Record):
    """Images of the journal that were drawn again, on the same or another stack, and how they compared."""

    kind: Literal["replay"] = "replay"
    images: int
    identical: int
    """Bit for bit."""
    largest_difference: int
    """Of any pixel, of 255."""
    same_hits: int
    """Images on which the gate detector said the same."""
    tolerance: int
    """The largest difference that counts as the same."""
    versions: dict[str, str]
    device: str


Line = BatchLine | DistanceLine | ArmLine | TrainingLine | ShamLine | ErrorLine | NoteLine | MetricLine | HalvedLine | StopLine | ReplayLine
_KINDS: dict[str, type[Record]] = {
    "batch": BatchLine,
    "distance": DistanceLine,
    "arm": ArmLine,
    "training": TrainingLine,
    "sham": ShamLine,
    "error": ErrorLine,
    "note": NoteLine,
    "metric": MetricLine,
    "halved": HalvedLine,
    "stop": StopLine,
    "replay": ReplayLine,
}


def read_journal(path: Path) -> list[Line]:
    """The lines of a journal. A torn last line is dropped; a line torn elsewhere raises :class:`AuditorError`."""
    if not path.exists():
        return []
    whole_lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline was torn while it was written
    lines: list[Line] = []
    for number, text in enumerate(whole_lines, 1):
        try:
            value: dict[str, Any] = json.loads(text)
            lines.append(_KINDS[value["kind"]].model_validate(value))  # type: ignore[arg-type]
        except (ValueError, KeyError, TypeError) as error:
            raise AuditorError(f"{path}:{number}: this line of the journal is damaged ({error}); audit again in a new folder.") from error
    return lines


class Journal:
    """Appends lines to a journal, each on the disk before the call returns. One process at a time."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise UsageError(f"Another audit is writing to {path.parent}; wait for it, or give another folder with --out.") from error
        self._file.seek(0)
        self._file.truncate(self._file.read().rfind(b"\n") + 1)

    def write(self, line: Line) -> None:
        """Append one line and wait until it is on the disk. What a full disk tears off is dropped when the journal is next read."""
        rest = line.model_dump_json().encode() + b"\n"
        while rest:
            rest = rest[self._file.write(rest) :]
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
