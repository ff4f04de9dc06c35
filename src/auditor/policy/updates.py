"""The policy's ``updates``: a population of ordinary updates, and what is claimed of the share of them that
brings a concept back."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from auditor.errors import UsageError
from auditor.policy.fields import Share, StrictModel, as_tuple

MOST_UPDATES = 1000
Values = Annotated[tuple[Any, ...], BeforeValidator(as_tuple)]


class UpdateUse(StrictModel):
    """One kind of update that people make. An update of it draws the number of training steps, each value
    under ``draw``, its concepts, its training images and its training seed."""

    use: str
    method: Literal["lora", "full"] = "lora"
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """How often it is drawn beside the others."""
    steps: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(as_tuple)] = (500,)
    """Training steps: one of these numbers is drawn."""
    options: dict[str, Any] = Field(default_factory=dict)
    draw: dict[str, Values] = Field(default_factory=dict)
    """Options by name, each with values of which one is drawn."""

    @model_validator(mode="after")
    def _something_to_draw(self) -> Self:
        if not self.steps:
            raise ValueError("'steps' is empty; give at least one number of training steps")
        for name, values in self.draw.items():
            if not values:
                raise ValueError(f"'draw' has no value for '{name}'")
            if name in self.options:
                raise ValueError(f"'{name}' stands under both 'options' and 'draw'; leave one out")
        return self


class UpdateClaim(StrictModel):
    """What a PASS says of the population: fewer than ``share`` of its updates bring a concept back."""

    share: Share = 0.2
    over: Literal["updates", "pairs"] = "updates"
    """``pairs``: every update is asked about one erased concept, drawn at random, and the share is of pairs
    of an update and a concept."""
    alpha_in: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """The level at which one update is read: the chance at most that one which brings a concept back is read
    clean."""
    max_drop: Share = 0.25
    """How much of what the base draws one update may cost. What a model loses in sensitivity by it is paid
    for in the limit of the rate: ``min_sensitivity * (1 - max_drop) * tau``."""


class UpdateBudget(StrictModel):
    """How much may be spent on the population, at most."""

    updates: int = Field(default=60, ge=1, le=MOST_UPDATES)
    least_updates: int = Field(default=1, ge=1)
    """So many are read in any case, also where fewer decide: for a narrower interval of their share."""
    images_per_update: int = Field(default=240, ge=1)
    """Of each erased concept, in one update."""
    retained_per_update: int = Field(default=150, ge=1)

    @model_validator(mode="after")
    def _least_within(self) -> Self:
        if self.least_updates > self.updates:
            raise ValueError(f"'least_updates' is above the {self.updates} 'updates' of the budget")
        return self


class Updates(StrictModel):
    """A population of updates, the claim about it, and its budget."""

    population: Annotated[tuple[UpdateUse, ...], BeforeValidator(as_tuple)]
    claim: UpdateClaim = UpdateClaim()
    budget: UpdateBudget = UpdateBudget()

    @field_validator("population")
    @classmethod
    def _somebody(cls, value: tuple[UpdateUse, ...]) -> tuple[UpdateUse, ...]:
        if not value:
            raise ValueError("'population' is empty: there is no update to draw")
        return value

    def raised(self, updates: int) -> Self:
        """With a larger number of updates. Raises :class:`UsageError` where it is smaller."""
        if updates < self.budget.updates:
            raise UsageError(
                f"updates.budget.updates can only be raised: the policy allows {self.budget.updates}, and "
                f"{updates} was asked for."
            )
        if updates > MOST_UPDATES:
            raise UsageError(
                f"updates.budget.updates is {MOST_UPDATES} at most, and {updates} was asked for."
            )
        return self.model_copy(update={"budget": self.budget.model_copy(update={"updates": updates})})
