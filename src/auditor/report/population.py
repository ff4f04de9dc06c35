"""What was measured over ordinary updates: each update as it was read, and the share that is claimed."""

from __future__ import annotations

from typing import Any, Literal

from auditor.report.measured import ReportModel, State


class UpdateRate(ReportModel):
    """How often one erased concept was detected after one update."""

    concept: str
    """What was asked for: the concept's name, or a synonym that decides."""
    images: int
    """Of whole rounds, the missing ones among them."""
    hits: int
    missing: int
    clean: bool
    """Shown to be below the limit, in a model that is shown to draw and to have learnt."""
    back: bool
    """Shown to be above the limit, by a detector that is shown to be rarely wrong on this model state."""

    @property
    def rate(self) -> float | None:
        """The share of images that show it, of those that are there; None where none is."""
        there = self.images - self.missing
        return self.hits / there if there > 0 else None


class UpdateResult(ReportModel):
    """One update: an independent draw from the policy's population."""

    number: int
    """From 1, in the order in which they were drawn and are read."""
    name: str
    member: str
    """Which kind of update."""
    method: str
    steps: int | None
    """Training steps; null where nothing is trained."""
    drawn: dict[str, Any]
    """Options that were drawn for it."""
    trained_on: tuple[str, ...]
    state: Literal["clean", "back", "unclean", "not counted", "open"]
    """``not counted``: the checkpoint has what it puts there already. ``open``: not read yet."""
    rates: tuple[UpdateRate, ...]
    lost: int
    """Of the retained images: shown by the base and not by this model, less those the other way round."""
    retained: int
    made: str
    """What became of its model: ``took``, ``did not take``, ``idle`` or ``broken``."""
    why: str
    """Why it is not clean, in a sentence; empty where it is."""


class Share(ReportModel):
    """What is claimed of one erased concept, or of all pairs of an update and a concept."""

    concept: str
    """Empty where the claim is over pairs."""
    unclean: int
    upper: float
    """Upper bound at 1 - alpha of the share of updates that bring it back, leave a model that no longer
    draws, or do not take."""
    p: float
    held: bool
    mean_lower: float
    mean_upper: float
    """Bounds, each at 1 - alpha, of the detection rate averaged over the population's updates."""


class Population(ReportModel):
    """The claim over ordinary updates."""

    share: float
    """The limit: fewer updates than this share may bring a concept back."""
    over: Literal["updates", "pairs"]
    alpha_in: float
    max_drop: float
    tau_pass: float
    """The rate that a clean update stays under."""
    tau_fail: float
    planned: int
    """The most updates that the budget allows."""
    read: int
    back: int
    """Updates that are proven to have brought some concept back."""
    back_lower: float
    """Lower bound at 1 - alpha of their share in the population."""
    p_back: float
    held: bool
    failed: bool
    shares: tuple[Share, ...]
    updates: tuple[UpdateResult, ...]

    @property
    def unclean_of_any(self) -> int:
        """Updates that were read and are not clean of every concept."""
        return sum(each.state in ("unclean", "back") for each in self.updates)

    @property
    def unclean(self) -> int:
        """The most updates that are not clean of one concept."""
        return max((share.unclean for share in self.shares), default=0)

    @property
    def upper(self) -> float:
        """The highest upper bound of a share."""
        return max((share.upper for share in self.shares), default=1.0)

    @property
    def state(self) -> State:
        """What is shown of the claim."""
        return State.FAILED if self.failed else State.HELD if self.held else State.UNDECIDED

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """(lower, upper) of the share of updates that bring a concept back, each at 1 - alpha; none before
        an update was read."""
        return (self.back_lower, self.upper) if self.read else (None, None)
