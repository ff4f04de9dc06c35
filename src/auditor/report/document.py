"""What was found: the report, version 1. Everything a person or a machine is shown is a function of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from auditor.report.measured import (
    CellResult,
    DetectorReading,
    Distance,
    MetricResult,
    Quality,
    Replicates,
    ReportModel,
    Resurgence,
    StepsToResurgence,
)
from auditor.report.population import Population


class Outcome(StrEnum):
    """How an audit ended."""

    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    ERROR = "ERROR"


class Cause(StrEnum):
    """Why an audit is INCONCLUSIVE. The values are anchors of ``docs/inconclusive.md`` and stay."""

    NOT_ONE_EVIDENCE = "not-one-evidence"
    """The images are no evidence that a PASS may rest on: chosen seeds, several devices, not looked at
    again."""
    BLIND = "blind"
    """The base or the detector cannot show the concept."""
    CONTROL = "control"
    """Another control did not pass."""
    BUDGET = "budget"
    """The run ended before everything that is needed was drawn and scored."""
    TOO_FEW_IMAGES = "too-few-images"
    """What was seen is neither shown to be below the limit nor above it."""


class Verdict(ReportModel):
    """The outcome, with reasons in sentences that name cell, numbers and limit."""

    outcome: Outcome
    origin: Literal["not erased", "came back", "undecided"] | None = None
    """Of a FAIL: whether the concept was never gone or came back under a probe."""
    reasons: tuple[str, ...] = Field(min_length=1)
    causes: tuple[Cause, ...] = ()
    """Of an INCONCLUSIVE: the cause of each of ``reasons``, in their order; empty of others, and in older
    reports."""


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
    prediction: str = ""
    """What its denoiser was trained to predict; empty in older reports."""
    chosen: dict[str, str] = Field(default_factory=dict)
    """What the user chose where its files do not say one thing: ``prediction``, or a component's weights."""
    content: str = ""
    """Of one file over a base: what it holds, of an adapter with its strengths."""


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
    bound: float | None = None
    """The one-sided bound of ``value`` that was held against ``limit``; null where nothing is estimated, and
    in older reports."""


class Picture(ReportModel):
    """One image to show: same prompt and seed across arms."""

    arm: str
    concept: str
    prompt: str
    index: int
    image: str
    hit: bool
    label: str
    score: float | None
    """The gate's score for the concept; null where it gives none."""


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


class NextStep(ReportModel):
    """What would decide an INCONCLUSIVE audit. Odds are no evidence: no verdict rests on them."""

    command: str | None
    """Goes on in the run's folder; null where no number of images decides."""
    images: int | None
    """More images, about; null where it is not known."""
    most_images: int | None
    minutes: float | None
    p_pass: float | None
    """The chance that it ends in PASS, by what was seen so far; null where that says nothing yet."""
    p_fail: float | None
    mend: tuple[str, ...]
    """What keeps PASS out of reach whatever is drawn, and what to do instead; in sentences."""
    sentence: str
    budget: dict[str, float] = Field(default_factory=dict)
    """The numbers of the budget that ``command`` raises, by their key in a policy."""


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
    exploratory: str | None = None
    """Of a report by another detector or decision than the policy's: which. It is never a PASS."""
    next_step: NextStep | None = None
    """Of an INCONCLUSIVE audit; null of others, and in older reports."""
    checkpoint: CheckpointFacts
    base: CheckpointFacts | None
    policy_digest: str
    """Of the policy as it was written; a larger budget that was given beside it stands in ``policy``."""
    policy: dict[str, Any]
    policy_file: PolicyPlace | None = None
    gate: str = ""
    """The detector that decides and how, in words; empty in older reports."""
    other_ways: tuple[str, ...] = ()
    """Model states of the erased weights that are drawn or asked otherwise: how, in sentences."""
    controls: tuple[Control, ...]
    cells: tuple[CellResult, ...]
    other_detectors: tuple[DetectorReading, ...] = ()
    """What detectors beside the gate say of the same images; empty where the policy names one."""
    resurgence: tuple[Resurgence, ...]
    population: Population | None = None
    """The claim over ordinary updates; null where the policy has none, and in older reports."""
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
    damaged: tuple[Picture, ...] = ()
    """Retained images that the base shows as what they should be and a model state does not, those that lost
    most first: pairs of the base's image and the model state's, same prompt and noise."""
    after_updates: tuple[Picture, ...] = ()
    """Images in which the gate saw an erased concept after an update of the population, of the updates with
    the highest rates; each update has noise of its own."""
    ledger: Ledger
    assumptions: tuple[str, ...]
    """What a PASS rests on, in sentences."""
    provenance: Provenance
