"""What was measured: rates, what came back, training seeds and steps, utility, metrics, weight distances."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class ReportModel(BaseModel):
    """Frozen; unknown keys and NaN are errors. An undefined number is null and comes with a reason, never
    0."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class State(StrEnum):
    """What a cell's evidence says."""

    HELD = "held"
    FAILED = "failed"
    UNDECIDED = "undecided"


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


class DetectorReading(ReportModel):
    """What a detector beside the gate says of one cell's images. No verdict rests on it."""

    detector: str
    arm: str
    role: str
    concept: str
    surface: str
    images: int
    """Images of whole rounds, the missing ones among them."""
    hits: int
    missing: int
    rate: float | None
    lower: float | None
    upper: float | None
    compared: int
    """Images that both it and the gate answered for, also of a round that was not drawn whole."""
    only_gate: int
    """Of these, how many the gate alone says show the concept."""
    only_this: int
    """And how many it alone says show it."""

    @property
    def agreement(self) -> float | None:
        """Share of the compared images on which both say the same."""
        return None if not self.compared else 1 - (self.only_gate + self.only_this) / self.compared


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
    """How far the audited denoiser's weights lie from the base's, in one block or kind of layer."""

    part: str
    relative: float
    """L2 norm of the difference divided by the base's L2 norm."""
    cosine: float
    """Between the two sets of weights."""
