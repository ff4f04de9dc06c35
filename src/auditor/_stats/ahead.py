"""What more images would decide: the chances that a test which has not decided yet does so, round by round.

What the rate is nobody knows, so it is weighed by what was seen: coming images are drawn from the posterior
predictive distribution under the Jeffreys prior (a beta-binomial urn), and each test is read at the ends of
coming rounds as it is in a run. For rates this is exact dynamic programming over (round, hits); for paired
differences it is simulated with a fixed seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from auditor._stats import paired
from auditor._stats.eprocess import Floats, Prior, log_evidence_above, log_evidence_below

_JEFFREYS = 0.5
_NOTHING = 1e-12  # a chance that is as good as none
_PATHS, _LOOKS = 400, 60
_AT_ONCE = 50  # paths

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Ahead:
    """Chances that a test has decided after 0, 1, 2, … more rounds: for what was to be shown, and (of a
    deciding check) against it."""

    shown: Floats
    against: Floats
    size: int
    """Images in a round."""

    def images(self) -> Floats:
        """The mean number of images drawn by then, were a check drawn until it is decided."""
        still = 1 - self.shown - self.against
        return np.concatenate([[0.0], self.size * np.cumsum(still[:-1])])


@dataclass(frozen=True)
class Test:
    """Evidence that a rate is ``below`` a limit, or above it, and the level at which it decides."""

    limit: float
    level: float
    below: bool

    def decides_at(self, n: Counts, prior: Prior) -> Counts:
        """For so many images the most hits (``below``) or the fewest at which it decides; -1 or n + 1 where
        no number does."""
        evidence = log_evidence_below if self.below else log_evidence_above
        enough = -math.log(self.level)
        # the evidence falls in hits (below) or rises in them: the edge is between `yes` and `no`
        yes, no = (np.full_like(n, -1), n + 1) if self.below else (n + 1, np.full_like(n, -1))
        while True:
            middle = (yes + no) // 2
            open_ = np.abs(yes - no) > 1
            if not open_.any():
                return yes
            safe = np.clip(middle, 0, n)
            good = np.asarray(evidence(safe, n, self.limit, prior)) >= enough
            yes, no = np.where(open_ & good, middle, yes), np.where(open_ & ~good, middle, no)


@lru_cache(maxsize=512)
def rate_ahead(
    low: int,
    missing: int,
    n: int,
    size: int,
    rounds: int,
    shown: Test,
    against: Test | None,
    prior: Prior,
) -> Ahead:
    """Of a rate of which ``low`` of ``n`` images were hits and ``missing`` of them are missing, over
    ``rounds`` more rounds of ``size`` images. Neither test has decided yet.

    Missing images count against what is to be shown, as they do in a run; coming ones are not missing.
    """
    images = n + size * np.arange(rounds + 1)
    edges = [
        None if test is None else test.decides_at(images, prior) - (missing if test.below else 0)
        for test in (shown, against)
    ]
    most = low + size * rounds
    log_hit = gammaln(_JEFFREYS + np.arange(most + size + 1))
    log_miss = gammaln(_JEFFREYS + np.arange(n - missing - low + size * (rounds + 1) + 1))
    log_all = gammaln(2 * _JEFFREYS + np.arange(n - missing + size * (rounds + 1) + 1))
    choose = np.array([math.log(math.comb(size, k)) for k in range(size + 1)])
    mass, first, ends = np.array([1.0]), low, np.zeros((2, rounds + 1))
    for done in range(1, rounds + 1):
        total = n - missing + size * (done - 1)
        hits = first + np.arange(len(mass))
        misses = total - hits
        new = np.zeros(len(mass) + size)
        for k in range(size + 1):
            chance = (
                choose[k]
                + log_hit[hits + k]
                - log_hit[hits]
                + log_miss[misses + size - k]
                - log_miss[misses]
                - log_all[total + size]
                + log_all[total]
            )
            new[k : k + len(mass)] += mass * np.exp(chance)
        hits = first + np.arange(len(new))
        for which, (test, edge) in enumerate(zip((shown, against), edges, strict=True)):
            if test is not None and edge is not None:
                over = hits <= edge[done] if test.below else hits >= edge[done]
                ends[which, done] = new[over].sum()
                new[over] = 0.0
        alive = np.flatnonzero(new > _NOTHING)
        if not alive.size:
            break
        mass, first = new[alive[0] : alive[-1] + 1], first + int(alive[0])
    return Ahead(np.cumsum(ends[0]), np.cumsum(ends[1]), size)


@lru_cache(maxsize=512)
def drop_ahead(
    plus: int, minus: int, zero: int, size: int, rounds: int, most_drop: float, level: float
) -> Ahead:
    """The same of the test that a mean paired drop is below ``most_drop``, by 400 simulated paths that are
    read at 60 of the coming rounds at most."""
    if not rounds:
        return Ahead(np.zeros(1), np.zeros(1), size)
    # the generator whose stream no version of NumPy may change: the same journal gives the same report
    random = np.random.RandomState(0)
    looks = np.unique(np.linspace(1, rounds, min(rounds, _LOOKS)).astype(int))
    up_share, down_share, _ = random.dirichlet(np.array([plus, minus, zero]) + _JEFFREYS, _PATHS).T[
        :, :, None
    ]
    sizes = np.broadcast_to(size * np.diff(looks, prepend=0), (_PATHS, len(looks)))
    ups = random.binomial(sizes, up_share)
    downs = random.binomial(sizes - ups, np.minimum(1.0, down_share / (1 - up_share)))
    drawn = np.cumsum(np.stack([ups, downs, sizes - ups - downs]), 2)
    shown = np.zeros(rounds + 1)
    for start in range(0, _PATHS, _AT_ONCE):
        up, down, same = drawn[:, start : start + _AT_ONCE]
        good = paired.log_evidence(plus + up, minus + down, zero + same, -most_drop) >= -math.log(level)
        firsts = looks[good.argmax(1)[good.any(1)]]
        np.add.at(shown, firsts, 1 / _PATHS)
    return Ahead(np.cumsum(shown), np.zeros(rounds + 1), size)


def first_reaching(chances: Floats, target: float) -> int:
    """The first place at which ``chances``, which rise, are at least ``target``; the last where none is."""
    found = np.flatnonzero(chances >= target - _NOTHING)
    return int(found[0]) if found.size else len(chances) - 1
