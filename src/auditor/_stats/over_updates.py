"""What the claim over a population of updates will do, before any update is made: exact dynamic programming
over (updates read, unclean ones, ones proven to be back) for the rules of
:mod:`auditor._audit.evidence.share`, and a design of fixed size to compare with.

Updates are independent draws, so each is unclean, and back, with the same chance whatever the others are.
What that chance is hangs on the share of bad updates (:func:`unclean_chance`, :func:`back_chance`) and on
how one update is read (:mod:`~auditor._stats.one_update`).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from auditor._stats.ahead import Test, rate_ahead
from auditor._stats.eprocess import Prior, log_evidence_above, log_evidence_below

WORTH = 0.05
"""Where a PASS is out of reach, a smaller chance of a FAIL is not worth another update."""

_MOST_UPDATES = 2000


def unclean_chance(share: float, missed: float = 0.0, misread: float = 0.0) -> float:
    """The chance that a drawn update is read unclean, where ``share`` of the population is bad.

    ``missed``: a bad one is read clean, with chance ``alpha_in`` at most. ``misread``: a good one is not
    read clean.
    """
    return share * (1 - missed) + (1 - share) * misread


def back_chance(share: float, proven: float = 1.0, false: float = 0.0) -> float:
    """The chance that a drawn update is proven to bring a concept back, where ``share`` of the population
    does. ``proven``: such a one is proven. ``false``: another one is, with chance ``alpha_in`` at most."""
    return share * proven + (1 - share) * false


@dataclass(frozen=True)
class ShareOutlook:
    """What becomes of a claim over updates: chances of its ends, and the mean number of updates read."""

    passed: float
    failed: float
    updates: float

    @property
    def undecided(self) -> float:
        """The chance of neither."""
        return max(0.0, 1 - self.passed - self.failed)


@dataclass(frozen=True)
class ShareDesign:
    """The claim that fewer than ``share`` of the updates are bad, for one concept: at most ``updates`` are
    read, each at ``alpha_in``. PASS has level ``alpha``, FAIL alpha / ``hypotheses`` (m of verdict.md)."""

    share: float
    updates: int
    alpha: float
    alpha_in: float
    hypotheses: int
    prior: Prior

    @property
    def limit_unclean(self) -> float:
        """share * (1 - alpha_in): at so many unclean updates or more the claim may be wrong."""
        return self.share * (1 - self.alpha_in)

    @property
    def limit_back(self) -> float:
        """share + (1 - share) * alpha_in: so many updates at most are proven to be back where the claim is
        right."""
        return self.share + (1 - self.share) * self.alpha_in

    @cached_property
    def _enough(self) -> tuple[float, float]:
        return -math.log(self.alpha), -math.log(self.alpha / self.hypotheses)

    def to_pass(self, unclean: int) -> int | None:
        """The least number of updates that PASS with ``unclean`` ones among them; None: over 2000."""
        n = np.arange(max(unclean, 1), _MOST_UPDATES + 1)
        shown = log_evidence_below(unclean, n, self.limit_unclean, self.prior) >= self._enough[0]
        return int(n[shown.argmax()]) if shown.any() else None

    def to_fail(self) -> int | None:
        """How many proven ones in a row FAIL; None: over 2000."""
        n = np.arange(1, _MOST_UPDATES + 1)
        shown = log_evidence_above(n, n, self.limit_back, self.prior) >= self._enough[1]
        return int(n[shown.argmax()]) if shown.any() else None

    def outlook(self, unclean: float, back: float = 0.0, futility: bool = True) -> ShareOutlook:
        """Exact chances where each update is unclean with chance ``unclean``, and with ``back`` of that also
        proven to be back. Raises ValueError where ``back`` exceeds ``unclean``.

        Reading ends once PASS or FAIL is shown, or when not even clean updates alone could still show PASS,
        and the chance of FAIL, by what was seen, is below ``WORTH``. Without ``futility`` the last of these
        is left out.
        """
        if not 0 <= back <= unclean <= 1:
            raise ValueError(f"chances of {unclean} unclean and {back} back are no chances of one update")
        steps = 1 - unclean, unclean - back, back
        mass, updates, passed, failed = np.ones((1, 1)), 0.0, 0.0, 0.0
        for n in range(1, self.updates + 1):
            updates += float(mass.sum())
            grown = np.zeros((n + 1, n + 1))  # (unclean, back)
            grown[:n, :n] += steps[0] * mass
            grown[1:, :n] += steps[1] * mass
            grown[1:, 1:] += steps[2] * mass
            holds, may_hold = (flags[:, None] for flags in self._holds(n))
            fails, is_worth = (flags[None, :] for flags in self._fails(n, futility))
            failed += float(grown[np.broadcast_to(fails, grown.shape)].sum())
            passed += float(grown[holds & ~fails].sum())
            over = holds | fails | (~(may_hold | is_worth) if futility else False)
            mass = np.where(over, 0.0, grown)
        return ShareOutlook(passed, failed, updates)

    def _holds(self, n: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """By unclean updates among ``n``: is the claim shown, and can it be by the last one?"""
        counts, limit = np.arange(n + 1), self.limit_unclean
        now = log_evidence_below(counts, n, limit, self.prior) >= self._enough[0]
        return now, log_evidence_below(counts, self.updates, limit, self.prior) >= self._enough[0]

    def _fails(self, n: int, futility: bool) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """By updates among ``n`` that are proven to be back: is FAIL shown, and is it likely enough?"""
        counts = np.arange(n + 1)
        now = log_evidence_above(counts, n, self.limit_back, self.prior) >= self._enough[1]
        return now, counts >= (self._worth_from[n] if futility else 0)

    @cached_property
    def _worth_from(self) -> list[int]:
        """For each number of updates read the fewest proven ones with which FAIL is worth another update: its
        chance by what was seen, which rises in them, is ``WORTH`` at least."""
        against = Test(self.limit_back, self.alpha / self.hypotheses, below=False)

        def fewest(n: int) -> int:
            left = self.updates - n

            def is_worth(back: int) -> bool:
                ahead = rate_ahead(back, 0, n, 1, left, against, None, self.prior)
                return left > 0 and float(ahead.shown[-1]) >= WORTH

            return bisect_left(range(n + 1), True, key=is_worth)

        return [fewest(n) for n in range(self.updates + 1)]

    def fixed_outlook(self, n: int, unclean: float, back: float = 0.0) -> ShareOutlook:
        """The same where ``n`` updates are read, all of them and once, with binomial tails at the same levels
        and limits."""
        most, least = self.fixed_edges(n)
        return ShareOutlook(float(binom.cdf(most, n, unclean)), float(binom.sf(least - 1, n, back)), float(n))

    def fixed_edges(self, n: int) -> tuple[int, int]:
        """Of ``n`` updates read once: the most unclean ones that PASS (-1: none does), and the fewest proven
        ones that FAIL (n + 1: none does)."""
        counts = np.arange(n + 1)
        holds = binom.cdf(counts, n, self.limit_unclean) <= self.alpha
        fails = binom.sf(counts - 1, n, self.limit_back) <= self.alpha / self.hypotheses
        return int(holds.sum()) - 1, n + 1 - int(fails.sum())

    def fixed_size(self, unclean: float, power: float) -> int | None:
        """The least number of updates, read once, that PASS with chance ``power`` where each is unclean with
        chance ``unclean``; None: over 2000."""
        sizes = range(1, _MOST_UPDATES + 1)
        return next((n for n in sizes if self.fixed_outlook(n, unclean).passed >= power), None)
