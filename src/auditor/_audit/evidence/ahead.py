"""How many rounds a test needs yet, if all that comes is as it should be: what is drawn before the next
look."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from auditor._audit.cells import Cell
from auditor._stats import eprocess, paired

if TYPE_CHECKING:
    from auditor._audit.evidence.sequential_tests import Evidence, Reading


def negative_wants(evidence: Evidence, cell: Cell, concept: str, left: int, level: float) -> int:
    """Rounds until the detector is shown at ``level`` to be rarely wrong about ``concept``, likewise."""
    reading = evidence.read_others(cell, concept)
    limit = evidence.limits.max_false_positive
    return soonest(evidence, reading, cell.size, left, limit, above=False, level=level)


def alive_wants(evidence: Evidence, cell: Cell, left: int, most: float, level: float) -> int:
    """Rounds until "the drop is at least ``most``" is rejected at ``level`` if every coming pair is alike; 0
    if it is, or never can be."""
    pairs = evidence.retained_pairs(cell.arm)
    if pairs is None or evidence.p_drop(pairs, most) <= level:
        return 0
    plus, minus, zero = pairs.last
    more = np.arange(1, left + 1) * cell.size
    return _first(paired.log_evidence(plus, minus, zero + more, -most), level)


def soonest(
    evidence: Evidence,
    reading: Reading,
    size: int,
    left: int,
    limit: float,
    *,
    above: bool,
    level: float | None = None,
) -> int:
    """Rounds until the test rejects if every coming image is as it should be; 0 if it has rejected, or
    never can."""
    level = evidence.limits.alpha if level is None else level
    (low, high), prior = reading.hits, evidence.limits.prior
    more = np.arange(1, left + 1) * size
    if above:
        decided = evidence.p_above(reading, limit) <= level
        ahead = eprocess.log_evidence_above(low + more, reading.images + more, limit, prior)
    else:
        decided = evidence.p_below(reading, limit) <= level
        ahead = eprocess.log_evidence_below(high, reading.images + more, limit, prior)
    return 0 if decided else _first(ahead, level)


def _first(log_evidence: NDArray[np.float64], level: float) -> int:
    """The first place, from 1, where the evidence rejects at ``level``, or 0."""
    enough = np.flatnonzero(log_evidence >= -math.log(level))
    return int(enough[0]) + 1 if enough.size else 0
