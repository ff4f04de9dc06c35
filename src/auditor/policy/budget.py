"""The policy's ``budget``: how much may be drawn, and how more than that is asked for."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from auditor.errors import UsageError
from auditor.policy.fields import StrictModel

SYNONYM_IMAGES = 10


class Budget(StrictModel):
    """How much may be drawn, at most. Rates are read at whole rounds, so each number is rounded down to
    whole rounds."""

    images_per_cell: int = Field(default=200, ge=1)
    retained_per_arm: int = Field(default=300, ge=1)
    images_per_synonym: int = Field(default=SYNONYM_IMAGES, ge=1)
    """Of a synonym that is only reported (``synonyms: report``); one round at least. Where cells are read
    once, as many as of the concept itself."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Of measuring, summed over every call that worked on the run; what is not drawn by then stays
    undecided."""
    plugin_minutes: Annotated[float, Field(gt=0)] | None = 60
    """How long a plugin may be silent: one answer of a detector, one training step. Then the process ends
    with 5 and the same command goes on without it; null: for ever."""

    @model_serializer(mode="wrap")
    def _without_what_is_usual(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What came later and is left out keeps the digest of before."""
        found: dict[str, Any] = dump(self)
        if self.images_per_synonym == SYNONYM_IMAGES:
            found.pop("images_per_synonym", None)
        return found

    def raised(self, **more: float | None) -> Self:
        """With larger numbers by key; None leaves one as it is. Raises :class:`UsageError` where one is
        smaller."""
        given = {key: value for key, value in more.items() if value is not None}
        for key, value in given.items():
            own = getattr(self, key)
            if own is None or value < own:
                least = "no limit" if own is None else f"{own:g}"
                raise UsageError(
                    f"budget.{key} can only be raised: the policy allows {least}, and {value:g} was asked "
                    "for."
                )
        return self.model_copy(update=given)


def beside_identity(sequential: bool) -> dict[str, Any]:
    """What of a policy is left out where a run is named, for :meth:`pydantic.BaseModel.model_dump`: when to
    stop. Where cells are read once, at their planned size, only the minutes are."""
    budget: Any = True if sequential else {"minutes", "plugin_minutes"}
    return {"budget": budget, "on_undecided": True, "updates": {"budget": {"updates", "least_updates"}}}
