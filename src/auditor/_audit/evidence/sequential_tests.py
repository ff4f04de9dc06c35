"""What the outcomes so far say: every test that a verdict rests on, as numbers. Pure; words are made in
``verdict/``.

The run asks it through :mod:`~auditor._audit.evidence.stopping` what is still open, the judge what is proven,
a simulation both. Missing outcomes count against whatever is being claimed: as hits where absence is to be
shown, as misses where presence is (verdict.md, "Evidence").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from auditor._audit.cells import BASE, Cell, Role, Seeds
from auditor._audit.evidence.updates import Made, UpdateReading
from auditor._audit.plan import Plan
from auditor._stats import binomial, eprocess, paired
from auditor._stats.multiplicity import holm

MISSING = -1
"""In a table of outcomes: the image could not be drawn or scored. 1: the detector fired, 0: it did not."""

Outcomes = NDArray[np.int8]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Reading:
    """Running counts at the end of every whole round. ``low`` and ``high`` count missing outcomes as
    misses and as hits."""

    n: Counts
    low: Counts
    high: Counts
    whole: bool
    """Were all planned rounds drawn?"""

    @property
    def images(self) -> int:
        """Images in whole rounds."""
        return int(self.n[-1]) if self.n.size else 0

    @property
    def hits(self) -> tuple[int, int]:
        """(low, high) hits in whole rounds."""
        return (int(self.low[-1]), int(self.high[-1])) if self.n.size else (0, 0)


@dataclass(frozen=True)
class Pairs:
    """Running counts of differences between two arms at the end of every whole round: +1, -1, 0."""

    plus: Counts
    minus: Counts
    zero: Counts
    whole: bool

    @property
    def last(self) -> tuple[int, int, int]:
        """(plus, minus, zero) in whole rounds."""
        return (int(self.plus[-1]), int(self.minus[-1]), int(self.zero[-1])) if self.plus.size else (0, 0, 0)

    @property
    def images(self) -> int:
        """Pairs in whole rounds."""
        return sum(self.last)


class Evidence:
    """Tables of outcomes by cell name, each of shape (samples drawn, concepts) in the order of
    :meth:`Cell.samples`.

    Only columns that a cell is read for need to hold anything but MISSING: its own concept, or all for
    retained cells.
    """

    def __init__(
        self,
        plan: Plan,
        seeds: Seeds,
        outcomes: Mapping[str, Outcomes],
        made: Mapping[str, Made] | None = None,
    ) -> None:
        """``made``: what became of the models of a population's updates; None: each took."""
        self.plan, self.outcomes, self._made = plan, outcomes, made
        self.limits, self.sequential = plan.policy.limits, plan.policy.sequential
        self.tau_pass, self.tau_fail = plan.policy.thresholds
        self._seeds = seeds
        self.updates_read: dict[str, tuple[object, UpdateReading]] = {}
        """What :func:`~auditor._audit.evidence.updates.read_update` worked out, and from how many images."""
        self._retained_owner: dict[int | None, NDArray[np.int64]] = {}

    @cached_property
    def alpha_fail(self) -> float:
        """The level at which one check alone, or the share of updates, proves FAIL: alpha/m."""
        return self.limits.alpha / self.plan.hypotheses

    def made_of(self, arm: str) -> Made | None:
        """What became of the model of an update; None where it is not made yet."""
        return Made.TOOK if self._made is None else self._made.get(arm)

    # -- readings --------------------------------------------------------------------------------------------

    def rounds(self, cell: Cell) -> int:
        """Whole rounds drawn."""
        table = self.outcomes.get(cell.name)
        return 0 if table is None else min(len(table) // cell.size, cell.rounds)

    def read(self, cell: Cell) -> Reading:
        """How often the cell's own concept was seen (in retained cells: how often each image shows its own
        concept)."""
        table = self._whole(cell)
        return self._reading(cell, table[np.arange(len(table)), self._owner(cell)[: len(table)]])

    def read_others(self, cell: Cell, concept: str) -> Reading:
        """How often ``concept`` was seen in a retained cell's images of other concepts."""
        table, column = self._whole(cell), self.plan.columns[concept]
        return self._reading(cell, table[:, column], self._owner(cell)[: len(table)] != column)

    def pair(self, before: Cell, after: Cell, *, missing: int = -1) -> Pairs:
        """``after`` minus ``before``, image by image; where one is missing as if the difference were
        ``missing``: -1 or +1."""
        size = min(self.rounds(before), self.rounds(after)) * after.size
        owner = np.arange(size), self._owner(after)[:size]
        first, then = self._whole(before)[:size][owner], self._whole(after)[:size][owner]
        low, high = (then == 1).astype(np.int64) - (first != 0), (then != 0).astype(np.int64) - (first == 1)
        difference = low if missing < 0 else high
        ends = np.arange(after.size - 1, size, after.size)
        plus, minus, zero = (np.cumsum(difference == value)[ends] for value in (1, -1, 0))
        return Pairs(plus, minus, zero, whole=len(ends) == after.rounds)

    def _whole(self, cell: Cell) -> Outcomes:
        table = self.outcomes.get(cell.name)
        return (
            np.empty((0, len(self.plan.columns)), np.int8)
            if table is None
            else table[: self.rounds(cell) * cell.size]
        )

    def _owner(self, cell: Cell) -> NDArray[np.int64]:
        """The column of each image's own concept."""
        if cell.role is not Role.RETAINED:
            return np.full(cell.images, self.plan.columns[cell.concept])
        if cell.update not in self._retained_owner:  # the same in every arm, an update's own two aside
            self._retained_owner[cell.update] = np.array(
                [self.plan.columns[concept] for concept in cell.concepts(self._seeds)]
            )
        return self._retained_owner[cell.update]

    def _reading(self, cell: Cell, column: Outcomes, counted: NDArray[np.bool_] | None = None) -> Reading:
        counted = np.ones(len(column), bool) if counted is None else counted
        ends = np.arange(cell.size - 1, len(column), cell.size)
        n, low, high = (
            np.cumsum(flags)[ends] for flags in (counted, (column == 1) & counted, (column != 0) & counted)
        )
        return Reading(n, low, high, whole=len(ends) == cell.rounds)

    # -- tests of rates --------------------------------------------------------------------------------------

    def p_below(self, reading: Reading, limit: float) -> float:
        """p-value against "the rate is at least ``limit``"."""
        if self.sequential:
            return eprocess.p_below(reading.high, reading.n, limit, self.limits.prior)
        return binomial.p_held(reading.hits[1], reading.images, limit) if reading.whole else 1.0

    def p_above(self, reading: Reading, limit: float) -> float:
        """p-value against "the rate is at most ``limit``"."""
        if self.sequential:
            return eprocess.p_above(reading.low, reading.n, limit, self.limits.prior)
        return binomial.p_failed(reading.hits[0], reading.images, limit) if reading.whole else 1.0

    def bounds(self, reading: Reading, alpha: float) -> tuple[float, float]:
        """One-sided (lower, upper) confidence bounds, each at 1 - ``alpha``."""
        if self.sequential:
            prior = self.limits.prior
            lower = eprocess.lower_bound(reading.low, reading.n, alpha, prior)
            return lower, eprocess.upper_bound(reading.high, reading.n, alpha, prior)
        low, high = reading.hits
        return binomial.lower_bound(low, reading.images, alpha), binomial.upper_bound(
            high, reading.images, alpha
        )

    def p_held(self, cell: Cell) -> float:
        """p-value against "the rate is at least tau_P"."""
        return self.p_below(self.read(cell), self.tau_pass)

    def p_failed(self, cell: Cell) -> float:
        """p-value against "the rate is at most tau_F"."""
        return self.p_above(self.read(cell), self.tau_fail)

    def q(self, cell: Cell) -> float:
        """What FAIL is decided on: the larger of ``p_failed`` and the p-value of this arm's negative
        control."""
        return max(self.p_failed(cell), self.p_negative(cell.arm, cell.concept))

    def is_held(self, cell: Cell) -> bool:
        """Is the rate shown to be below tau_P?"""
        return self.p_held(cell) <= self.limits.alpha

    def failed_cells(self) -> list[Cell]:
        """The cells that prove FAIL, by Holm's procedure on ``q`` over all planned cells."""
        suspects = self.above(self.limits.alpha)
        named = holm([self.q(cell) for cell in suspects], self.limits.alpha, self.plan.hypotheses)
        return [cell for cell, rejected in zip(suspects, named, strict=True) if rejected]

    def above(self, level: float) -> list[Cell]:
        """The deciding cells whose rate alone, without their arm's negative control, is above tau_F at
        ``level``."""
        return [cell for cell in self.plan.gate_cells if self.p_failed(cell) <= level]

    # -- controls --------------------------------------------------------------------------------------------

    def p_negative(self, arm: str, concept: str) -> float:
        """Against "the detector sees ``concept`` in more than max_false_positive of other, retained
        concepts' images"."""
        cell = self.plan.retained_of(arm)
        return (
            1.0
            if cell is None
            else self.p_below(self.read_others(cell, concept), self.limits.max_false_positive)
        )

    def p_positive(self, cell: Cell) -> float:
        """Against "the base shows the concept in fewer than min_sensitivity of these images"."""
        return self.p_above(self.read(cell), self.limits.min_sensitivity)

    def p_assay(self, arm: str = BASE) -> float:
        """Against "the base, drawn as in ``arm``, shows fewer than min_retain of the retained images as what
        they should be" (ICH E10)."""
        cell = self.plan.cell(arm, Role.RETAINED)
        return 1.0 if cell is None else self.p_above(self.read(cell), self.limits.min_retain)

    def p_alive(self, arm: str) -> float:
        """Against "the arm's retained rate is lower than the base's by max_retain_drop or more":
        non-inferiority."""
        pairs = self.retained_pairs(arm)
        return 1.0 if pairs is None else self.p_drop(pairs)

    def p_drop(self, pairs: Pairs, most: float | None = None) -> float:
        """p-value against "the mean drop is at least ``most``"; None: max_retain_drop."""
        if not pairs.plus.size or not (self.sequential or pairs.whole):
            return 1.0
        counts, most = self._read_at(pairs), self.limits.max_retain_drop if most is None else most
        return min(1.0, math.exp(-float(np.max(paired.log_evidence(*counts, -most)))))

    def drop_bound(self, pairs: Pairs) -> float | None:
        """The smallest drop that the same test rejects at alpha: what the mean drop lies below; None where it
        is not read yet."""
        if not pairs.plus.size or not (self.sequential or pairs.whole):
            return None
        return -paired.lower_bound(*self._read_at(pairs), self.limits.alpha)

    def _read_at(self, pairs: Pairs) -> tuple[Counts, Counts, Counts]:
        """Counts at every look: at each round, or once at the end."""
        first = 0 if self.sequential else -1
        return pairs.plus[first:], pairs.minus[first:], pairs.zero[first:]

    def retained_pairs(self, arm: str) -> Pairs | None:
        """The arm's retained images beside the base's, or None without a base or retained concepts."""
        before, after = self.plan.retained_partner(arm), self.plan.retained_of(arm)
        return None if before is None or after is None else self.pair(before, after)
