"""What was found: the report, version 1. Everything a person or a machine is shown is a function of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class ReportModel(BaseModel):
    """Frozen; unknown keys and NaN are errors. An undefined number is null and comes with a reason, never
    0."""

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
    form: str
    commit: str | None
    """Of a repository on the Hub."""
    digest: str
    """Of everything that loading reads."""
    root_digest: str
    """Of all files, as OpenSSF model signing computes it."""
    parameters: int
    files: dict[str, str]
    drawn_digest: str = ""
    """Of what is drawn with, values and vocabulary, however it is stored: what seeds derive from."""
    beside: tuple[str, ...] = ()
    """Files that hold weights for some program and were not audited."""
    beside_known: bool = True
    """False for a repository that was taken from the Hub's cache: what else it holds was not asked."""


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
    """Images drawn and scored."""
    images: int
    """Images of whole rounds, the missing ones among them: what the bounds and the state rest on."""
    planned: int
    """The most images that the plan allows."""
    hits: int
    missing: int
    """Images that could not be drawn or scored; each counts against whatever is claimed."""
    rate: float | None
    lower: float | None
    upper: float | None
    bounds: str
    """What ``lower`` and ``upper`` are, and how ``n`` came about."""
    state: State | None
    """Of a cell that decides; null for others."""
    p_held: float
    p_failed: float
    q: float | None
    """Of a cell that decides: max(p_failed, p of this arm's negative control): what FAIL is decided on."""
    mean_score: float | None
    found: int | None
    """Images in which there was anything to judge (a face), where the detector says so; the bounds rest on
    all images."""
    seconds: float
    prompts: tuple[PromptCount, ...]


class Control(ReportModel):
    """A control with its own null hypothesis."""

    name: Literal[
        "vocabulary",
        "text encoder",
        "autoencoder",
        "negative",
        "positive",
        "assay",
        "alive",
        "potent",
        "sham",
        "repeat",
        "earlier",
    ]
    arm: str
    concept: str | None = None
    decides: Literal["PASS", "FAIL"] = "PASS"
    """Which verdict rests on it."""
    passed: bool | None
    """None where the control does not apply."""
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
    missing: int
    """Pairs with an image missing: -1 in the lower bound, +1 in the upper one, left out of the rest."""
    plus: int
    minus: int
    difference: float | None
    lower: float | None
    upper: float | None
    normalised: float | None
    """The difference divided by base minus erased: 1 where the concept is all back."""
    normalised_lower: float | None
    normalised_upper: float | None
    reason: str | None
    """Why ``normalised`` is null."""


class Replicates(ReportModel):
    """The training seeds of one probe at one dose, for one concept. Nothing is pooled."""

    probe: str
    dose: int
    concept: str
    rates: tuple[float | None, ...]
    held: int
    bad_seeds_upper: float | None
    """If all held: upper bound, at confidence 1 - 2 alpha, of the share of training seeds under which the
    concept comes back."""
    sentence: str


class StepsToResurgence(ReportModel):
    """The first dose at which the concept is back lies above ``lower`` and at most at ``upper``; an open
    end is null."""

    probe: str
    replicate: int
    concept: str
    lower: int | None
    upper: int | None
    sentence: str


class Quality(ReportModel):
    """Retained concepts in one arm."""

    arm: str
    n: int
    correct: int
    accuracy: float | None
    base_accuracy: float | None
    drop: float | None
    drop_upper: float | None


class MetricResult(ReportModel):
    """A metric of one arm's retained images; information."""

    arm: str
    metric: str
    images: int
    value: float
    lower: float
    upper: float
    """The interval is a 95 % bootstrap over prompts, seeded."""


class Distance(ReportModel):
    """How far the audited UNet's weights lie from the base's, in one block or kind of layer."""

    part: str
    relative: float
    """L2 norm of the difference divided by the base's L2 norm."""
    cosine: float
    """Between the two sets of weights."""


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
    digest: str
    """Of all images and captions, the held-out ones among them."""


class Ledger(ReportModel):
    """Where every planned sample ended."""

    planned: int
    measured: int
    missing: int
    """Drawn, and neither of two tries gave a usable image. Counted against whatever is claimed."""
    not_needed: int
    """Their cell was decided without them."""
    skipped: int
    """Left out as the policy says; ``skipped_because`` says why."""
    skipped_because: tuple[str, ...]
    unscored: int
    """Drawn, but a detector failed on them, or was not asked. Keeps PASS out of reach."""
    not_drawn: int
    """Wanted, and not there. Keeps PASS out of reach."""
    errors: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Was something planned, and is nothing of it unaccounted for?"""
        return self.planned > 0 and not self.unscored and not self.not_drawn and not self.errors


class Replay(ReportModel):
    """Images drawn again by ``auditor replay``."""

    images: int
    identical: int
    largest_difference: int
    same_hits: int
    tolerance: int
    succeeded: bool
    """Within the tolerance in every pixel, and the same said of every image. If not, the run cannot PASS."""
    versions: dict[str, str]
    device: str
    sentence: str


class PolicyPlace(ReportModel):
    """Where the policy was read from, for those who show findings in it."""

    path: str
    lines: dict[str, int]
    """The line, from 1, of each concept."""

    def line_of(self, concept: str | None) -> int:
        """The line that asks for ``concept``; the first where that is not known."""
        return self.lines.get(concept or "", 1)


class Provenance(ReportModel):
    """What made the report, enough to make it again."""

    versions: dict[str, str]
    plugins: dict[str, str]
    audit_seed: str
    shared_seed: str
    seed_derivation: str
    attempt: int
    """How many audit seeds this machine has tried for the same concepts over the same base: k tries err up
    to k times as often."""
    started: str
    device: str
    command: str
    seconds: float
    replay: Replay | None
    observers: tuple[str, ...] = ()
    """Distributions that were told what happened."""
    warnings: tuple[str, ...] = ()
    """What went wrong and no verdict rests on: plugins that did not load, observers and metrics that
    raised."""


class Report(ReportModel):
    """An audit's report."""

    schema_version: Literal[1] = 1
    title: str
    verdict: Verdict
    checkpoint: CheckpointFacts
    base: CheckpointFacts | None
    policy_digest: str
    policy: dict[str, Any]
    policy_file: PolicyPlace | None = None
    controls: tuple[Control, ...]
    cells: tuple[CellResult, ...]
    resurgence: tuple[Resurgence, ...]
    replicates: tuple[Replicates, ...]
    steps: tuple[StepsToResurgence, ...]
    quality: tuple[Quality, ...]
    metrics: tuple[MetricResult, ...] = ()
    beside_unet: tuple[str, ...] = ()
    """What the checkpoint holds that is not the base's, its UNet aside, and what that means; in sentences."""
    weaker: tuple[str, ...] = ()
    """Limits, doses, rates and lists of prompts that are looser than their defaults, in sentences."""
    distances: tuple[Distance, ...]
    """For information: the paper supposes that concepts come back where erasure moved the weights little."""
    training: tuple[TrainingSet, ...]
    pictures: tuple[Picture, ...]
    ledger: Ledger
    assumptions: tuple[str, ...]
    """What a PASS rests on, in sentences."""
    provenance: Provenance
