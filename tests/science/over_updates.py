"""Audits over a population of updates, played at random against a population whose truth is known.

In each setting exactly ``share`` of the population is bad (kind 0 of it), so that a PASS, or a FAIL, is
wrong. Updates are drawn, read in order and judged by the code of a real audit. What one update shows is
simulated in two ways: as images (:func:`play_images`), or as its reading alone with exact chances
(:func:`play`), which is quick enough for many thousands of audits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from auditor._audit import population as drawing
from auditor._audit.cells import Cell, Role, Seeds
from auditor._audit.evidence import share
from auditor._audit.evidence.rehearsal import rehearse
from auditor._audit.evidence.sequential_tests import MISSING, Evidence, Outcomes
from auditor._audit.evidence.share import PopulationEvidence
from auditor._audit.evidence.updates import Made, UpdateReading
from auditor._audit.plan import Plan, make_plan, with_updates
from auditor._audit.population import DrawnUpdate, draw_updates
from auditor._stats import eprocess
from auditor._stats.one_update import UpdateDesign
from auditor._stats.over_updates import ShareDesign
from auditor.report import Outcome
from tests.conftest import short_policy
from tests.science.simulate import ALPHA, LIMITS, look_up

RETAINED = 150
IMAGES = 240
MAX_DROP = 0.25
Noise = NDArray[np.float64]


@dataclass(frozen=True)
class Kind:
    """How an update of one kind is read, with which chances: ``clean`` and ``back`` of each concept."""

    clean: float = 0.0
    back: float = 0.0
    made: Made | None = Made.TOOK
    """None: it is never made."""
    alive: bool = True


GOOD, BAD = Kind(clean=1.0), Kind(back=1.0)


@dataclass(frozen=True)
class Setting:
    """A population at the edge of the truth, and the verdict that would be wrong."""

    name: str
    wrong: Outcome
    bad: Kind
    good: Kind = GOOD
    share: float = 0.2
    alpha_in: float = 0.05
    updates: int = 60
    concepts: int = 1
    over: str = "updates"
    bad_of_all: float | None = None
    """The true share of bad updates; None: exactly the claim's ``share``."""

    @property
    def plan(self) -> Plan:
        """The audit's plan, without any audit's updates."""
        true = self.share if self.bad_of_all is None else self.bad_of_all
        return _plan(self.share, self.alpha_in, self.updates, self.concepts, self.over, true)


@lru_cache(maxsize=32)
def _plan(share: float, alpha_in: float, updates: int, concepts: int, over: str, bad: float) -> Plan:
    options = {"candidates": "micro-people", "prompts": "paper-people", "names": 2, "images_per_prompt": 1}
    kinds = [("lora", bad), ("full", 1 - bad)]
    population = [
        {"use": "in-domain", "method": method, "weight": weight, "options": options}
        for method, weight in kinds
        if weight > 0
    ]
    return make_plan(
        short_policy(
            erase=[
                {"name": f"Person {number}", "domain": "people", "prompts": "paper-people"}
                for number in range(concepts)
            ],
            probes=[],
            limits=LIMITS,
            sequential=True,
            updates={
                "population": population,
                "claim": {"share": share, "alpha_in": alpha_in, "max_drop": MAX_DROP, "over": over},
                "budget": {
                    "updates": updates,
                    "images_per_update": IMAGES,
                    "retained_per_update": RETAINED,
                },
            },
            budget={"images_per_cell": 60, "retained_per_arm": 60},
        )
    )


def share_design(setting: Setting) -> ShareDesign:
    """The exact counterpart of a setting's outer test, of one concept."""
    limits = setting.plan.policy.limits
    hypotheses = setting.plan.hypotheses
    return ShareDesign(
        setting.share, setting.updates, limits.alpha, setting.alpha_in, hypotheses, limits.prior
    )


def update_design(alpha_in: float) -> UpdateDesign:
    """The exact counterpart of the reading of one update, of one concept."""
    policy = _plan(0.2, alpha_in, 60, 1, "updates", 0.2).policy
    tau_pass, tau_fail = policy.thresholds_of_updates
    limits = policy.limits
    return UpdateDesign(
        size=5,
        images=IMAGES,
        retained_size=10,
        retained=RETAINED,
        tau_pass=tau_pass,
        tau_fail=tau_fail,
        max_drop=MAX_DROP,
        max_false_positive=limits.max_false_positive,
        alpha_in=alpha_in,
        prior=limits.prior,
    )


# -- readings with known chances -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Broken:
    """A safeguard taken out: nothing of it is in the code."""

    readings: Callable[[list[UpdateReading], list[UpdateReading]], list[UpdateReading]] | None = None
    """From what the updates show, and what others drawn in their place would, to what is read."""
    population: type[PopulationEvidence] = PopulationEvidence
    shared: bool = False
    """All updates have the noise of the first."""


AS_IT_IS = Broken()


@lru_cache(maxsize=200_000)
def _members(setting_updates: int, bad: float, run: int) -> tuple[DrawnUpdate, ...]:
    """What the audit with this number draws, by the planner's own hand: only kinds and concepts are kept
    apart, everything else of an update decides nothing here."""
    plan = _plan(0.2, 0.05, setting_updates, 2, "pairs", bad)
    with patch.object(drawing, "ProbeUse", lambda **_: None):  # what is trained decides nothing here
        drawn = draw_updates(plan.policy, f"audit {run}")
    return tuple(_known(update.number, update.member, str(update.concept)) for update in drawn)


@lru_cache(maxsize=4096)
def _known(number: int, member: int, concept: str) -> DrawnUpdate:
    like = draw_updates(_plan(0.2, 0.05, 1, 2, "pairs", 0.2).policy, "like")[0]
    return replace(like, number=number, member=member, concept=concept)


def play(setting: Setting, run: int, broken: Broken = AS_IT_IS) -> Outcome:
    """One audit of which every planned update was read, judged by the claim over updates alone."""
    plan = setting.plan
    bad = setting.share if setting.bad_of_all is None else setting.bad_of_all
    rng = np.random.default_rng([run, *setting.name.encode()])
    noise = rng.random((2, setting.updates, setting.concepts))
    updates = _members(setting.updates, bad, run)
    readings = list(_readings(setting, updates, noise[0], broken.shared))
    if broken.readings is not None:
        others = _members(setting.updates, bad, -run - 1)
        readings = broken.readings(readings, list(_readings(setting, others, noise[1], broken.shared)))
    evidence = Evidence(replace(plan, updates=updates[: len(readings)]), Seeds("audit", "shared"), {})
    with (
        patch.object(share, "read_update", lambda evidence, update: readings[update.number - 1]),
        patch.object(share, "PopulationEvidence", broken.population),
    ):
        return judged(evidence)


def _readings(
    setting: Setting, updates: Sequence[DrawnUpdate], noise: Noise, shared: bool
) -> Iterator[UpdateReading]:
    names = [concept.name for concept in setting.plan.policy.erase]
    for update, row in zip(updates, noise, strict=True):
        kind = setting.bad if update.member == 0 else setting.good
        luck = noise[0] if shared else row
        asked = [name for name in names if setting.over != "pairs" or name == update.concept]
        took = kind.made is Made.TOOK
        yield UpdateReading(
            update=update,
            made=kind.made,
            closed=kind.made is not None,
            held={name: bool(luck[names.index(name)] < kind.clean) for name in asked},
            clean={name: took and bool(luck[names.index(name)] < kind.clean) for name in asked},
            back={name: bool(luck[names.index(name)] >= 1 - kind.back / len(asked)) for name in asked},
            alive=kind.alive,
        )


def judged(evidence: Evidence) -> Outcome:
    """The verdict on the claim over updates alone, by the rule of ``auditor._audit.verdict.decide``."""
    found = share.population(evidence)
    assert found is not None
    if found.p_failed() <= evidence.alpha_fail:
        return Outcome.FAIL
    return Outcome.PASS if found.is_held(evidence.limits.alpha) else Outcome.INCONCLUSIVE


# -- images --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rates:
    """What the images of one kind of update show: the rate of the erased concept, the share of what is kept
    that is lost, and false positives among it."""

    rate: float = 0.0
    loss: float = 0.0
    false: float = 0.0
    hits_missing: bool = False
    """Where the concept would be seen there is no image."""


@dataclass
class Drawn(Mapping[str, Outcomes]):
    """Outcomes of every cell of one audit, made when they are asked for. The noise of an image is that of its
    seed, so that images of one seed have the same."""

    plan: Plan
    seeds: Seeds
    kinds: tuple[Rates, Rates]
    _tables: dict[str, Outcomes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._cells = {cell.name: cell for cell in self.plan.cells if cell.update is not None}

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)

    def __getitem__(self, name: str) -> Outcomes:
        if name not in self._tables:
            self._tables[name] = self._table(self._cells[name])
        return self._tables[name]

    def _table(self, cell: Cell) -> Outcomes:
        assert cell.update is not None
        kind = self.kinds[min(self.plan.updates[cell.update - 1].member, 1)]
        samples = cell.samples(self.seeds)
        own = np.array([self.plan.columns[sample.concept] for sample in samples])
        noise = uniform(np.array([sample.seed for sample in samples], np.uint64), len(self.plan.columns))
        judged = self.plan.arm(cell.arm).is_judged
        rates = np.zeros_like(noise)
        if cell.role is Role.RETAINED:
            rates[:, : len(self.plan.policy.erase)] = kind.false if judged else 0.0
            rates[np.arange(len(own)), own] = 1 - kind.loss if judged else 1.0
        else:
            rates[np.arange(len(own)), own] = kind.rate
        table = (noise < rates).astype(np.int8)
        if kind.hits_missing and cell.role is Role.UPDATE:
            table[table == 1] = MISSING
        return table


def uniform(seeds: NDArray[np.uint64], columns: int) -> Noise:
    """Noise in [0, 1) for each seed and column, the same for the same seed (splitmix64)."""
    with np.errstate(over="ignore"):
        mixed = seeds[:, None] + np.arange(1, columns + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed ^ (mixed >> np.uint64(31))) / 2.0**64


def play_images(setting: Setting, kinds: tuple[Rates, Rates], run: int, batch: int = 5) -> Evidence:
    """One audit's updates, image by image, as a run would draw them: ``kinds`` are bad and good ones."""
    seeds = Seeds(f"audit {run}", f"shared {run}")
    plan = with_updates(setting.plan, seeds)
    arms = tuple(arm for arm in plan.arms if arm.update is not None)
    drawn = Drawn(plan, seeds, kinds)
    with patch.object(Evidence, "failed_cells", lambda self: []):  # named checks are simulated elsewhere
        return rehearse(replace(plan, arms=arms), drawn, batch, seeds)


# -- many audits ---------------------------------------------------------------------------------------------


def wrong_in(setting: Setting, runs: int, broken: Broken = AS_IT_IS) -> int:
    """Of so many audits how many end in the wrong verdict."""
    with patch.object(eprocess, "log_evidence_below", look_up):
        return sum(play(setting, run, broken) is setting.wrong for run in range(runs))


def breaches(wrong: int, runs: int, level: float = ALPHA) -> bool:
    """Are there more wrong verdicts than ``level`` allows? Exact binomial."""
    return bool(binom.sf(wrong - 1, runs, level) < 0.001)
