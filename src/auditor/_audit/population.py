"""Which updates an audit makes of its policy's population: each an independent draw from the audit's seed.

Nothing of an update is chosen after a look, and none is drawn again (verdict.md, "Over ordinary updates").
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from auditor._files.digest import seed_of
from auditor.policy import Policy, ProbeUse, UpdateUse

POOL = 4
"""Training images that the base has for each caption: which of them an update begins with is drawn. They are
the same for every audit of one base and policy, so that they are drawn once."""

UPDATES = "updates"
"""What the model states of a population are called: ``updates.1``, ``updates.2`` and so on."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class DrawnUpdate:
    """One update, fixed before the first image. ``number`` counts from 1."""

    number: int
    member: int
    """Its kind, by its place in the population."""
    use: ProbeUse
    """The probe with everything that was drawn for it."""
    drawn: dict[str, object]
    """Options that were drawn."""
    choice: int
    """The seed that it chooses its training concepts with."""
    first_image: int
    """Of the pool of training images the one that it begins with, from 0."""
    concept: str | None = None
    """Of a claim over pairs: the erased concept that it is asked about. None: all."""

    @property
    def name(self) -> str:
        """What its model state is called."""
        return f"{UPDATES}.{self.number}"


def draw_updates(policy: Policy, audit_seed: str) -> tuple[DrawnUpdate, ...]:
    """As many updates as the budget allows. A larger budget has the same ones first."""
    if policy.updates is None:
        return ()
    return tuple(
        _draw(policy, policy.updates.population, audit_seed, number + 1)
        for number in range(policy.updates.budget.updates)
    )


def _draw(policy: Policy, population: Sequence[UpdateUse], audit_seed: str, number: int) -> DrawnUpdate:
    # reproducible on purpose; only random() is used, which is the same in every version of Python
    source = random.Random(seed_of(audit_seed, UPDATES, number))  # noqa: S311
    member = _weighted(source, [use.weight for use in population])
    use = population[member]
    steps = _one(source, use.steps)
    drawn = {name: _one(source, values) for name, values in sorted(use.draw.items())}
    concept = _one(source, policy.erase).name
    first = _one(source, range(POOL))
    pairs = policy.updates is not None and policy.updates.claim.over == "pairs"
    return DrawnUpdate(
        number=number,
        member=member,
        use=ProbeUse(use=use.use, method=use.method, doses=(steps,), options=use.options | drawn),
        drawn=drawn,
        choice=seed_of(audit_seed, UPDATES, number, "choice"),
        first_image=first,
        concept=concept if pairs else None,
    )


def _one(source: random.Random, values: Sequence[Value]) -> Value:
    return values[int(source.random() * len(values))]


def _weighted(source: random.Random, weights: Sequence[float]) -> int:
    left = source.random() * sum(weights)
    for place, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return place
    return len(weights) - 1
