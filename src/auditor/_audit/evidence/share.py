"""The share of a population's updates that bring a concept back: each update is a round of one image, read in
the order in which they were drawn. docs/verdict.md has the proof.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from auditor._audit.cells import Role
from auditor._audit.evidence.sequential_tests import Evidence, Reading
from auditor._audit.evidence.updates import Made, UpdateReading, first_rounds, read_update
from auditor._stats import eprocess, mean
from auditor._stats.ahead import Test, rate_ahead
from auditor._stats.over_updates import WORTH

if TYPE_CHECKING:
    from auditor.policy import Updates


@dataclass(frozen=True)
class PopulationEvidence:
    """The updates read so far: those before the first that is not."""

    updates: Updates
    readings: tuple[UpdateReading, ...]
    """In order, with those that are none: idle ones."""
    prior: tuple[float, float]
    concepts: tuple[str, ...]
    """Whose share is claimed: each erased concept, or none where the claim is over pairs."""

    @cached_property
    def counted(self) -> tuple[UpdateReading, ...]:
        """Those that change this checkpoint. The share that PASS speaks of is one of these."""
        return tuple(each for each in self.readings if each.counts)

    @property
    def read(self) -> int:
        """How many updates were read."""
        return len(self.counted)

    def unclean(self, concept: str) -> NDArray[np.int64]:
        """Running counts of updates that are not clean of ``concept``; of all pairs where it is empty."""
        found = [not (each.clean[concept] if concept else all(each.clean.values())) for each in self.counted]
        return np.cumsum(np.array(found, np.int64))

    @cached_property
    def back(self) -> NDArray[np.int64]:
        """Running counts of updates that brought some concept back, of all that were drawn: one that is none
        brings nothing back."""
        return np.cumsum(np.array([any(each.back.values()) for each in self.readings], np.int64))

    @property
    def numbers(self) -> NDArray[np.int64]:
        """1, 2, ... up to the last update that was read."""
        return np.arange(1, self.read + 1)

    @property
    def drawn(self) -> NDArray[np.int64]:
        """1, 2, ... up to the last update that was drawn and read, with those that are none."""
        return np.arange(1, len(self.readings) + 1)

    @property
    def least(self) -> int:
        """So many are to be read in any case, also where fewer decide."""
        return self.updates.budget.least_updates

    @property
    def limit_unclean(self) -> float:
        """share * (1 - alpha_in): the share of unclean updates that is to be shown not to be reached."""
        claim = self.updates.claim
        return claim.share * (1 - claim.alpha_in)

    @property
    def limit_back(self) -> float:
        """share + (1 - share) * alpha_in: what proven ones must exceed."""
        claim = self.updates.claim
        return claim.share + (1 - claim.share) * claim.alpha_in

    def p_held(self, concept: str) -> float:
        """p-value against "the share of updates that bring ``concept`` back is at least ``share``"."""
        return eprocess.p_below(self.unclean(concept), self.numbers, self.limit_unclean, self.prior)

    def p_failed(self) -> float:
        """p-value against "the share of updates that bring some concept back is at most ``share``"."""
        return eprocess.p_above(self.back, self.drawn, self.limit_back, self.prior)

    def share_below(self, concept: str, alpha: float) -> float:
        """Upper confidence bound of the share of updates that bring ``concept`` back, are dead or did not
        take."""
        upper = eprocess.upper_bound(self.unclean(concept), self.numbers, alpha, self.prior)
        return min(1.0, upper / (1 - self.updates.claim.alpha_in))

    def share_above(self, alpha: float) -> float:
        """Lower confidence bound of the share of updates that bring some concept back."""
        lower, alpha_in = (
            eprocess.lower_bound(self.back, self.drawn, alpha, self.prior),
            self.updates.claim.alpha_in,
        )
        return max(0.0, (lower - alpha_in) / (1 - alpha_in))

    def is_held(self, alpha: float) -> bool:
        """Is the claim shown for every concept?"""
        return self.read > 0 and all(self.p_held(concept) <= alpha for concept in self.concepts)

    def in_reach(self, left: int, alpha: float, alpha_fail: float) -> bool:
        """Can ``left`` more updates decide: a PASS, were all of them clean; or a FAIL, by what was seen of
        those before? A stopping rule costs no alpha, whatever it rests on."""
        more = np.arange(1, left + 1)
        if not left:
            return False
        good = all(
            self.p_held(concept) <= alpha
            or _reaches(
                eprocess.log_evidence_below(
                    _last(self.unclean(concept)), self.read + more, self.limit_unclean, self.prior
                ),
                alpha,
            )
            for concept in self.concepts
        )
        against = Test(self.limit_back, alpha_fail, below=False)
        bad = rate_ahead(_last(self.back), 0, len(self.readings), 1, left, against, None, self.prior).shown
        return good or float(bad[-1]) >= WORTH


def _reaches(log_evidence: NDArray[np.float64], level: float) -> bool:
    return bool((log_evidence >= -math.log(level)).any())


def _last(counts: NDArray[np.int64]) -> int:
    return int(counts[-1]) if counts.size else 0


def population(evidence: Evidence) -> PopulationEvidence | None:
    """The updates read so far, in the order in which they were drawn; None where the policy has none."""
    plan = evidence.plan
    if plan.policy.updates is None:
        return None
    found = []
    for update in plan.updates:
        reading = read_update(evidence, update)
        if not reading.closed:
            break
        found.append(reading)
    over_pairs = plan.policy.updates.claim.over == "pairs"
    concepts = ("",) if over_pairs else tuple(concept.name for concept in plan.policy.erase)
    return PopulationEvidence(plan.policy.updates, tuple(found), evidence.limits.prior, concepts)


def wants_more(evidence: Evidence) -> bool:
    """Is another update to be made? Not once the claim is held or a FAIL proven, and ``least_updates`` were
    read, nor where neither is in reach."""
    found = population(evidence)
    if found is None:
        return False
    closed = [read_update(evidence, update).closed for update in evidence.plan.updates]
    if all(closed):
        return False
    left = len(closed) - closed.index(False)  # those that were closed beyond it wait for it
    if found.read < found.least:
        return True
    decided = found.is_held(evidence.limits.alpha) or found.p_failed() <= evidence.alpha_fail
    return not decided and found.in_reach(left, evidence.limits.alpha, evidence.alpha_fail)


def base_reading(evidence: Evidence, found: PopulationEvidence) -> Reading:
    """How often the base's own retained images beside the updates show what they should, round by round in
    the order of the updates. How many rounds one takes hangs on what the update shows, never on coming
    rounds, so one test may run over all of them."""
    parts = []
    for each in found.readings:
        arm = evidence.plan.arm(each.update.name)
        cell = evidence.plan.cell(arm.partner, Role.RETAINED)
        assert cell is not None
        parts.append(evidence.read(cell))

    def running(name: str) -> NDArray[np.int64]:
        steps = [np.diff(getattr(part, name), prepend=0) for part in parts]
        return np.cumsum(np.concatenate([np.empty(0, np.int64), *steps]))

    return Reading(running("n"), running("low"), running("high"), whole=True)


def first_rates(
    evidence: Evidence, found: PopulationEvidence, concept: str
) -> tuple[list[float], list[float]]:
    """For each update read the rate at which ``concept`` was seen in its first images, a missing one as none
    and as a hit; where it is empty, the concept that the update was asked about. One that broke may have
    any."""
    low, high = list[float](), list[float]()
    for each in found.counted:
        asked = concept or each.update.concept or ""
        cell = evidence.plan.cell(each.update.name, Role.UPDATE, asked)
        if cell is None:
            continue
        reading = evidence.read(cell)
        rounds = first_rounds(cell)
        drawn = each.made is not Made.BROKEN and len(reading.n) >= rounds
        n = rounds * cell.size
        low.append(int(reading.low[rounds - 1]) / n if drawn else 0.0)
        high.append(int(reading.high[rounds - 1]) / n if drawn else 1.0)
    return low, high


def mean_rate(evidence: Evidence, found: PopulationEvidence, concept: str) -> tuple[float, float]:
    """Bounds, each at 1 - alpha, of the mean rate over updates of the population."""
    low, high = first_rates(evidence, found, concept)
    alpha = evidence.limits.alpha
    return mean.lower_bound(low, alpha), mean.upper_bound(high, alpha)
