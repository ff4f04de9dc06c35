"""What a cell's test will do, before any image is drawn: exact dynamic programming over (round, hits).

Chances are exact for a cell whose prompts all have the same rate. With the limits at one rate (``tau`` 0.1,
alpha 0.05, five prompts) and ``cells`` = 1, 10, 40 the number of images that suffices is 160, 235, 290
(verdict.md, "Budget and stopping").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from auditor._stats import binomial, paired
from auditor._stats.eprocess import Prior, log_evidence_above, log_evidence_below

_WRONG = 0.1  # chance, shared by all cells, that a rate of tau/4 is not held by the last round
_HOPELESS = 0.1  # a cell is closed as undecided once both of its chances are below this
_MOST_IMAGES = 4000
_FARTHEST = 10**6

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Outlook:
    """What becomes of a cell at one rate: chances of its three ends, and the mean number of images."""

    rate: float
    held: float
    failed: float
    images: float

    @property
    def undecided(self) -> float:
        """The chance of neither."""
        return max(0.0, 1 - self.held - self.failed)


@dataclass(frozen=True)
class Design:
    """A sequential cell: ``size`` images a round, ``rounds`` at most, held below ``tau_pass`` or failed above
    ``tau_fail``.

    ``alpha`` is the level of "held"; "failed" has alpha / ``cells``. ``tau`` is the rate that the policy asks
    about.
    """

    size: int
    rounds: int
    tau: float
    tau_pass: float
    tau_fail: float
    alpha: float
    cells: int
    prior: Prior

    @cached_property
    def _decided(self) -> tuple[list[Flags], list[Flags]]:
        held, failed = [], []
        for done in range(self.rounds + 1):
            n = done * self.size
            hits = np.arange(n + 1)
            held.append(log_evidence_below(hits, n, self.tau_pass, self.prior) >= -math.log(self.alpha))
            failed.append(
                log_evidence_above(hits, n, self.tau_fail, self.prior) >= -math.log(self.alpha / self.cells)
            )
        return held, failed

    @cached_property
    def _hopeless(self) -> list[Flags]:
        """For every (round, hits): are both chances, held at tau/4 and failed at 2 tau, below one in ten, and
        is the rate so far not above ``tau_fail``?"""
        held, failed = self._decided
        hold = self._chance_of(held, failed, self.tau / 4)
        fail = self._chance_of(failed, held, min(1.0, 2 * self.tau))
        return [
            (one < _HOPELESS) & (two < _HOPELESS) & (np.arange(len(one)) <= self.tau_fail * done * self.size)
            for done, (one, two) in enumerate(zip(hold, fail, strict=True))
        ]

    def _chance_of(self, end: list[Flags], other: list[Flags], rate: float) -> list[NDArray[np.float64]]:
        """Backwards: the chance to reach ``end`` before ``other`` and before the last round is over, from
        every (round, hits)."""
        step = binom.pmf(np.arange(self.size + 1), self.size, rate)
        chance = [np.where(end[-1], 1.0, 0.0)]
        for done in range(self.rounds - 1, -1, -1):
            ahead = np.convolve(chance[-1], step[::-1])[self.size : self.size + len(end[done])]
            chance.append(np.where(end[done], 1.0, np.where(other[done], 0.0, ahead)))
        return chance[::-1]

    def hopeless(self, rounds: int, hits_low: int, hits_high: int) -> bool:
        """Futility: is a decision too unlikely to draw on? ``hits_high`` counts missing images as hits,
        ``hits_low`` as none.

        Closing a cell as undecided can only lower the chances of both errors. Before the first round, and
        where the budget is too small to hold even a rate of zero, no cell is closed: what there is may still
        fail.
        """
        if rounds == 0 or not self.can_hold:
            return False
        table = self._hopeless[min(rounds, self.rounds)]
        return bool(table[hits_low] and table[hits_high])

    @cached_property
    def can_hold(self) -> bool:
        """Are there rounds enough to hold a cell in which nothing is ever detected?"""
        return bool(self._decided[0][-1][0])

    @property
    def futility_table(self) -> list[tuple[int, int, int]]:
        """(images, from hits, to hits) at which the cell is closed as undecided, one row a round where
        there is such a range."""
        rows = []
        for done, table in enumerate(self._hopeless[:-1]):
            closed = np.flatnonzero(table & ~self._decided[0][done] & ~self._decided[1][done])
            if done and self.can_hold and closed.size:
                rows.append((done * self.size, int(closed[0]), int(closed[-1])))
        return rows

    def outlook(self, rate: float, futility: bool = True) -> Outlook:
        """Exact chances at ``rate``, with or without futility."""
        held, failed = self._decided
        step = binom.pmf(np.arange(self.size + 1), self.size, rate)
        mass, images, ends = np.array([1.0]), 0.0, [0.0, 0.0]
        for done in range(1, self.rounds + 1):
            images += self.size * float(mass.sum())
            mass = np.convolve(mass, step)
            for which, table in enumerate((held[done], failed[done])):
                ends[which] += float(mass[table].sum())
            over = held[done] | failed[done] | (self._hopeless[done] if futility and self.can_hold else False)
            mass = np.where(over, 0.0, mass)
        return Outlook(rate, ends[0], ends[1], images)


@lru_cache(maxsize=64)
def design(
    size: int,
    tau: float,
    tau_pass: float,
    tau_fail: float,
    alpha: float,
    cells: int,
    prior: Prior,
    most_images: int,
) -> Design:
    """The design with as many whole rounds as ``most_images`` allow."""
    return Design(size, most_images // size, tau, tau_pass, tau_fail, alpha, cells, prior)


@lru_cache(maxsize=64)
def enough_images(
    size: int, tau: float, tau_pass: float, tau_fail: float, alpha: float, cells: int, prior: Prior
) -> int | None:
    """N_max: the least number of images, in whole rounds, at which a rate of tau/4 is held with chance 1 -
    0.1 / ``cells``.

    None where 4000 images do not suffice.
    """
    step = binom.pmf(np.arange(size + 1), size, tau / 4)
    mass, held = np.array([1.0]), 0.0
    for n in range(size, _MOST_IMAGES + 1, size):
        mass = np.convolve(mass, step)
        hits = np.arange(n + 1)
        good = log_evidence_below(hits, n, tau_pass, prior) >= -math.log(alpha)
        bad = log_evidence_above(hits, n, tau_fail, prior) >= -math.log(alpha / cells)
        held += float(mass[good].sum())
        mass = np.where(good | bad, 0.0, mass)
        if held >= 1 - _WRONG / cells:
            return n
    return None


def least_images(size: int, limit: float, alpha: float, prior: Prior) -> int:
    """The images, in whole rounds of ``size``, after which a rate is held below ``limit`` at ``alpha`` if
    nothing at all is seen."""
    n = np.arange(size, _FARTHEST, size)
    return int(n[np.argmax(log_evidence_below(0, n, limit, prior) >= -math.log(alpha))])


def least_pairs(size: int, most_drop: float, alpha: float) -> int:
    """The pairs, in whole rounds of ``size``, after which a mean drop is held below ``most_drop`` at
    ``alpha`` if nothing at all is lost."""
    n = np.arange(size, _MOST_IMAGES, size)
    return int(n[np.argmax(paired.log_evidence(0, 0, n, -most_drop) >= -math.log(alpha))])


def fixed_outlook(n: int, rate: float, tau_pass: float, tau_fail: float, alpha: float, cells: int) -> Outlook:
    """The same for a cell of fixed size, read once with binomial tails."""
    hits = np.arange(n + 1)
    mass = binom.pmf(hits, n, rate)
    held = sum(
        float(m) for s, m in zip(hits, mass, strict=True) if binomial.p_held(int(s), n, tau_pass) <= alpha
    )
    failed = sum(
        float(m)
        for s, m in zip(hits, mass, strict=True)
        if binomial.p_failed(int(s), n, tau_fail) <= alpha / cells
    )
    return Outlook(rate, held, failed, float(n))
