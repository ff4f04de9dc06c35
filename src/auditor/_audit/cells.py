"""What a plan is made of: model states (arms), cells, and the samples in them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from auditor._diffusion.seeds import image_seed, round_seed
from auditor._files.digest import sha256_json
from auditor.policy import Sampler

LARGEST_ROUND = 10
"""A sequential cell with more prompts takes this many in a round, drawn afresh without replacement
(verdict.md)."""

FIRST_OF_ERASED = 8
"""Images of the erased arm's first batch: it is drawn again by every control that asks for the same bits."""
HELD_OUT_TIMES = 8
"""Timesteps at which the loss on each held-out picture is measured."""
TRAINED_TIMES = 4
"""And on each picture that was trained on: they are more, and it is they that differ."""
MOST_TRAINED = 40
"""Pictures of a training set whose loss is measured, at most."""


class Role(StrEnum):
    """What a cell is for."""

    GATE = "gate"  # an erased concept in the erased arm or a probed one: decides
    REPORT = "report"  # a synonym that the policy asks to see, not to judge
    POSITIVE = "positive"  # an erased concept in the base arm: the positive control
    PICTURE = "picture"  # one round of the base on the gate's own seeds: for people, beside the other arms
    UPDATE = "update"  # an erased concept after one update of the population: read clean or not
    RETAINED = "retained"  # all retained concepts of an arm, read together: alive and negative controls


@dataclass(frozen=True)
class Seeds:
    """The two seeds that every other derives from: the audit's, and the one that audits of one base share."""

    audit: str
    shared: str

    def of(self, cell: Cell) -> str:
        """The seed that a cell's images derive from. Of an update of the population it is its own: with noise
        that several updates share, their errors would come together."""
        seed = self.shared if cell.role in (Role.POSITIVE, Role.RETAINED) else self.audit
        return seed if cell.update is None else sha256_json([seed, "update", cell.update])


class Weights(StrEnum):
    """Whose weights an arm is drawn from."""

    BASE = "base"
    ERASED = "erased"
    UPDATED = "updated"  # those of the erased model after a probe


BASE, ERASED = "base", "erased"
"""The names of the two arms that every other is held against."""


@dataclass(frozen=True)
class Arm:
    """One model state that images are drawn from: whose weights, how they are sampled, and what it is held
    against.

    ``base``, ``erased``, and one for each probe x replicate x dose. A probe that samples or asks otherwise
    has one more, the base in the same way (``base.NAME``): its ``partner``.
    """

    name: str
    weights: Weights
    probe: int | None = None
    replicate: int = 1
    dose: int = 0
    sampler: Sampler | None = None
    """None: the policy's."""
    partner: str = BASE
    """The arm of the base that shows whether the detector sees, and the model draws, what is asked here."""
    update: int | None = None
    """Of the population: which update, from 1. No check of its own rests on it, but the share of updates."""
    retained_by: str | None = None
    """The arm whose retained images speak for this one, because they are the same images; None: its own."""

    @property
    def is_judged(self) -> bool:
        """Does a verdict rest on what it shows?"""
        return self.weights is not Weights.BASE

    @property
    def is_named(self) -> bool:
        """Is it judged by itself, and not as one of many updates?"""
        return self.is_judged and self.update is None


@dataclass(frozen=True)
class Item:
    """One prompt of a cell and the concept that it names."""

    concept: str
    prompt: str
    seeds: tuple[int, ...] = ()
    """Of a comparison run: the image seeds, round by round, instead of derived ones."""


@dataclass(frozen=True)
class PlannedSample:
    """One image to draw."""

    cell: Cell
    concept: str
    prompt: str
    index: int
    seed: int


@dataclass(frozen=True)
class Cell:
    """Concept x arm: what a rate is estimated for. The retained concepts of one arm are one cell.

    ``surface`` tells cells of one arm and role apart: the concept's name, a synonym, or the prompt where
    ``unit: prompt``. A round takes ``size`` of the items; at most ``rounds`` are drawn.
    """

    arm: str
    role: Role
    concept: str
    surface: str
    items: tuple[Item, ...]
    size: int
    rounds: int
    update: int | None = None
    """Of which update of the population: its images have noise of their own."""

    @property
    def name(self) -> str:
        """Unique in a plan, readable in a journal."""
        return f"{self.arm}|{self.role}|{self.surface}"

    @property
    def images(self) -> int:
        """Images when every round is drawn."""
        return self.rounds * self.size

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts, in the policy's order."""
        return tuple(item.prompt for item in self.items)

    def concepts(self, seeds: Seeds) -> list[str]:
        """The concept that each image's prompt names, in the order of :meth:`samples`."""
        return [
            item.concept
            for index in range(self.rounds)
            for item in _round(seeds.of(self), self.items, self.size, index)
        ]

    def samples(self, seeds: Seeds) -> list[PlannedSample]:
        """Every image, round by round: the order in which they are drawn. The arm is in no seed, so arms
        share noise and rounds."""
        seed = seeds.of(self)
        return [
            PlannedSample(self, item.concept, item.prompt, index, _seed_of(item, seed, index))
            for index in range(self.rounds)
            for item in _round(seed, self.items, self.size, index)
        ]


def _seed_of(item: Item, seed: str, index: int) -> int:
    return item.seeds[index] if item.seeds else image_seed(seed, item.concept, item.prompt, index)


@lru_cache(maxsize=4096)
def _round(seed: str, items: tuple[Item, ...], size: int, index: int) -> tuple[Item, ...]:
    if size == len(items):
        return items
    # reproducible on purpose
    return tuple(random.Random(round_seed(seed, items[0].prompt, index)).sample(items, size))  # noqa: S311
