"""The policy's ``gate``: which detector decides, and how what it says of an image becomes seen, not seen, or
nothing."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from auditor.policy.fields import StrictModel, as_tuple

_Bound = Annotated[float, Field(ge=0, le=1)]


class Vote(StrictModel):
    """Several detectors decide together, each as it says itself."""

    detectors: Annotated[tuple[str, ...], BeforeValidator(as_tuple)]
    at_least: int = Field(ge=1)
    """So many must see the concept; where so many no longer can, it is not seen; else nothing is decided."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if len(set(self.detectors)) != len(self.detectors):
            raise ValueError("a detector votes twice")
        if self.at_least > len(self.detectors):
            raise ValueError(f"{self.at_least} votes are asked of {len(self.detectors)} detectors")
        return self


class Decision(StrictModel):
    """How an observation becomes hit, miss or missing; with none of these keys as the detector says itself.

    A missing one counts against whatever is claimed.
    """

    threshold: _Bound | None = None
    """A score of this or more is a hit."""
    abstain: Annotated[tuple[_Bound, _Bound] | None, BeforeValidator(as_tuple)] = None
    """(low, high): below ``low`` a miss, from ``high`` on a hit, between them missing."""
    vote: Vote | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(each is not None for each in (self.threshold, self.abstain, self.vote)) > 1:
            raise ValueError("give one of 'threshold', 'abstain' and 'vote'")
        if self.abstain is not None and self.abstain[0] > self.abstain[1]:
            raise ValueError("'abstain' is [low, high]: the first may not be above the second")
        return self

    @property
    def bounds(self) -> tuple[float, float] | None:
        """(low, high) for scores: a miss below the first, a hit from the second on; None: no score
        decides."""
        return (self.threshold, self.threshold) if self.threshold is not None else self.abstain

    @property
    def sentence(self) -> str:
        """It in words."""
        if self.vote is not None:
            return f"at least {self.vote.at_least} of {', '.join(self.vote.detectors)}"
        if self.abstain is not None:
            return f"score below {self.abstain[0]:g}: not seen, from {self.abstain[1]:g} on: seen"
        return "as the detector says" if self.threshold is None else f"score of {self.threshold:g} or more"


class Gate(StrictModel):
    """The detector that decides, by name, and its decision."""

    detector: str | None = None
    """None: the first of the policy."""
    decision: Decision = Decision()
