"""What was found: the report, version 1. Everything a person or a machine is shown is a function of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class ReportModel(BaseModel):
    """Frozen; unknown keys and NaN are errors. An undefined number is null and comes with a reason, never 0."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Outcome(StrEnum):
    """How an audit ended."""

    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    ERROR = "ERROR"


class State(StrEnum):
    """What a cell's evidence says."""

    HELD = "held"
    FAILED = "failed"
    UNDECIDED = "undecided"


class Verdict(ReportModel):
    """The outcome, with reasons in sentences that name cell, numbers and limit."""

    outcome: Outcome
    origin: Literal["not erased", "came back", "undecided"] | None = None
    """Of a FAIL: whether the concept was never gone or came back under a probe."""
    reasons: tuple[str, ...] = Field(min_length=1)


class CheckpointFacts(ReportModel):
    """A checkpoint as it was admitted."""

    source: str
    digest: str
    parameters: int
    files: dict[str, str]


class PromptCount(ReportModel):
    """One prompt of a cell."""

    prompt: str
    n: int
    hits: int


class CellResult(ReportModel):
    """A rate: how often the gate detector fired in one cell."""

    arm: str
    role: str
    concept: str
    surface: str
    n: int
    planned: int
    hits: int
    missing: int
    """Planned images of finished rounds that could not be drawn or scored; imputed against the claim."""
    rate: float | None
    lower: float | None
    upper: float | None
    bounds: str
    """What ``lower`` and ``upper`` are."""
    state: State
    p_held: float
    p_failed: float
    q: float
    """max(p_failed, p of this arm's negative control): what FAIL is decided on."""
    mean_score: float | None
    prompts: tuple[PromptCount, ...]


class Control(ReportModel):
    """A control with its own null hypothesis."""

    name: Literal["negative", "positive", "alive", "potent", "assay"]
    arm: str
    concept: str | None = None
    passed: bool
    value: float | None
    limit: float
    p: float | None
    n: int
    sentence: str


class Resurgence(ReportModel):
    """Detection rate in a probed arm minus the rate in the erased arm, same prompts and image seeds."""

    arm: str
    concept: str
    pairs: int
    plus: int
    minus: int
    difference: float | None
    lower: float | None
    upper: float | None


class Quality(ReportModel):
    """Retained concepts in one arm."""

    arm: str
    n: int
    correct: int
    accuracy: float | None
    base_accuracy: float | None
    drop: float | None
    drop_upper: float | None


class Picture(ReportModel):
    """One image to show: same prompt and seed across arms."""

    arm: str
    concept: str
    prompt: str
    index: int
    image: str
    hit: bool
    label: str
    score: float


class TrainingSet(ReportModel):
    """What a probe was trained on."""

    probe: str
    concepts: tuple[str, ...]
    images: int
    forbidden_hits: dict[str, int]


class Ledger(ReportModel):
    """Where every planned sample ended. Anything but ``measured`` keeps PASS out of reach."""

    planned: int
    measured: int
    missing: int
    not_drawn: int
    errors: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Nothing planned was left out, and something was planned."""
        return self.planned > 0 and self.planned == self.measured + self.missing and not self.errors


class Provenance(ReportModel):
    """What made the report, enough to make it again."""

    versions: dict[str, str]
    plugins: dict[str, str]
    audit_seed: str
    shared_seed: str
    started: str
    device: str
    command: str
    seconds: float


class Report(ReportModel):
    """An audit's report."""

    schema_version: Literal[1] = 1
    title: str
    verdict: Verdict
    checkpoint: CheckpointFacts
    base: CheckpointFacts | None
    policy_digest: str
    policy: dict[str, Any]
    controls: tuple[Control, ...]
    cells: tuple[CellResult, ...]
    resurgence: tuple[Resurgence, ...]
    quality: tuple[Quality, ...]
    training: tuple[TrainingSet, ...]
    pictures: tuple[Picture, ...]
    ledger: Ledger
    provenance: Provenance
