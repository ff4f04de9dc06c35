"""The audit of the auditor: whole audits, played at random against a world whose truth is known (verdict.md,
last section).

Only the image oracle is simulated. What is drawn next and what it proves is decided by the planner and the
evidence of a real audit; ``verdict`` is the rule of ``auditor._audit.verdict.decide.decide`` without its
words (``test_levels.py`` compares the two).
"""

from __future__ import annotations

import math
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from auditor._audit.cells import Cell, Role, Seeds
from auditor._audit.evidence.rehearsal import rehearse
from auditor._audit.evidence.sequential_tests import MISSING, Evidence, Outcomes
from auditor._audit.plan import Plan, make_plan
from auditor._stats import eprocess
from auditor.report import Outcome
from tests.conftest import short_policy

SEEDS = Seeds("audit", "shared")
ALPHA, K = 0.05, 5
LIMITS = {
    "tau": 0.1,
    "alpha": ALPHA,
    "min_sensitivity": 0.8,
    "max_false_positive": 0.05,
    "min_retain": 0.8,
    "max_retain_drop": 0.1,
}
TAU_PASS, TAU_FAIL = 0.08, 0.145
_FIXED = {"sequential": False, "images": 250}
BATCHES = (64, 256, 1024)
WORKERS = 2
MOST = 400
"""Images that a cell of the plans below may have."""

SHAPES = {2: (1, 2), 10: (5, 2), 40: (8, 5)}
"""m -> (erased concepts, judged arms). A policy needs a probe, hence two judged arms at least: m = 1
cannot be had."""

Rates = NDArray[np.float64]
World = Callable[[Plan, Cell], Rates]
"""(plan, cell) -> chance that the detector fires, of shape (prompts of the cell, concepts); NaN: no image
can be drawn or scored."""


@lru_cache(maxsize=32)
def make_audit(
    m: int, sequential: bool = True, images: int = 400, retained: int = 300, prompts: int = K
) -> Plan:
    """An audit with ``m`` deciding cells, each with ``prompts`` prompts; two retained people; the limits
    above."""
    concepts, arms = SHAPES[m]
    templates: Any = (
        "paper-people" if prompts == K else [f"picture {number} of {{}}" for number in range(prompts)]
    )
    probe = short_policy().model_dump(mode="json")["probes"][0] | {"replicates": arms - 1}
    return make_plan(
        short_policy(
            erase=[
                {"name": f"Person {number}", "domain": "people", "prompts": templates}
                for number in range(concepts)
            ],
            probes=[probe],
            limits=LIMITS,
            sequential=sequential,
            budget={"images_per_cell": images, "retained_per_arm": retained},
        )
    )


# -- worlds --------------------------------------------------------------------------------------------------


def perfect(plan: Plan, cell: Cell) -> Rates:
    """The base shows everything, every arm what was retained, none what was erased; the detector is never
    wrong."""
    rates = np.zeros((len(cell.items), len(plan.columns)))
    if cell.role in (Role.RETAINED, Role.POSITIVE, Role.PICTURE):
        rates[np.arange(len(cell.items)), [plan.columns[item.concept] for item in cell.items]] = 1.0
    return rates


def spread(rate: float) -> tuple[float, ...]:
    """The same rate for every prompt."""
    return (rate,) * K


def clustered(rate: float, prompts: int = K) -> tuple[float, ...]:
    """A mean of ``rate`` that the last prompts carry alone, one of them whole before the next."""
    return tuple(min(1.0, max(0.0, prompts * rate - rank)) for rank in range(prompts))[::-1]


def with_gate(
    prompts: tuple[float, ...],
    only: Callable[[Plan, Cell], bool] = lambda plan, cell: True,
    base: World = perfect,
) -> World:
    """``base``, but in gate cells (or the ones chosen) the erased concept is seen at these rates, prompt
    by prompt."""

    def world(plan: Plan, cell: Cell) -> Rates:
        rates = base(plan, cell)
        if cell.role is Role.GATE and only(plan, cell):
            rates[:, plan.columns[cell.concept]] = prompts
        return rates

    return world


def last_cell(plan: Plan, cell: Cell) -> bool:
    """Is it the last gate cell, of the last arm?"""
    return cell == plan.gate_cells[-1]


def first_concept(plan: Plan, cell: Cell) -> bool:
    """Is it the first erased concept, whatever the arm?"""
    return cell.concept == plan.policy.erase[0].name


def nearly_blind(rate: float) -> World:
    """The base's images show the first erased concept, to the detector, only at ``rate``."""

    def world(plan: Plan, cell: Cell) -> Rates:
        return perfect(plan, cell) * (
            rate if cell.role is Role.POSITIVE and first_concept(plan, cell) else 1.0
        )

    return world


def false_alarms(
    rate: float, concepts: Callable[[Plan], slice], only_base: bool, base: World = perfect
) -> World:
    """The detector sees these concepts at ``rate`` in retained images of others, of the base or of every
    arm."""

    def world(plan: Plan, cell: Cell) -> Rates:
        rates = base(plan, cell)
        if cell.role is Role.RETAINED and (cell.arm == "base" or not only_base):
            chosen = rates[:, concepts(plan)]
            chosen[chosen == 0] = rate
        return rates

    return world


def keeps(base_rate: float, last_arm: tuple[float, ...]) -> World:
    """Retained concepts are shown at ``base_rate``, but in the last arm at ``last_arm``, by prompt (which
    repeats, concept by concept)."""

    def world(plan: Plan, cell: Cell) -> Rates:
        rates = perfect(plan, cell)
        if cell.role is Role.RETAINED:
            rates *= np.resize(last_arm, len(rates))[:, None] if cell.arm == plan.arms[-1].name else base_rate
        return rates

    return world


def broken(where: Callable[[Cell], bool], value: float) -> World:
    """In these cells every outcome is 0, 1 or missing (NaN), whatever was asked for."""
    return lambda plan, cell: (
        np.full((len(cell.items), len(plan.columns)), value) if where(cell) else perfect(plan, cell)
    )


# -- one audit -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """A world, the audit played in it, and the verdict that would be wrong. ``world`` lies at the edge of
    the truth."""

    name: str
    world: World
    wrong: Outcome
    m: int = 2
    runs: int = 2000
    options: Mapping[str, Any] = field(default_factory=dict)
    lose: tuple[Role, int] | None = None
    """Images of cells with this role whose own concept was seen (1) or not seen (0) go missing, all of
    them."""
    shared: bool = False
    """Arms that share image seeds share their luck."""
    cut: bool = False
    """The last arm was never asked for an erased concept."""

    @property
    def plan(self) -> Plan:
        """The audit's plan."""
        return make_audit(self.m, **self.options)


@lru_cache(maxsize=256)
def layout(cell: Cell, seeds: Seeds) -> tuple[NDArray[np.int64], list[int]]:
    """(place of the prompt among the cell's, image seed) of every sample."""
    place = {(item.concept, item.prompt): number for number, item in enumerate(cell.items)}
    samples = cell.samples(seeds)
    return np.array([place[sample.concept, sample.prompt] for sample in samples]), [
        sample.seed for sample in samples
    ]


def play(setting: Setting, run: int) -> Evidence:
    """One whole audit: the evidence when nothing more would be drawn."""
    plan, rng = setting.plan, np.random.default_rng([run, *setting.name.encode()])
    # they draw the prompts of a round
    seeds = Seeds(f"audit {run}", f"shared {run}") if "prompts" in setting.options else SEEDS
    luck: dict[int, Rates] = {}
    tables: dict[str, Outcomes] = {}
    for cell in plan.cells:
        prompts, images = layout(cell, seeds)
        noise = rng.random((cell.images, len(plan.columns)))
        if setting.shared:
            noise = np.array([luck.setdefault(seed, row) for seed, row in zip(images, noise, strict=True)])
        rates = setting.world(plan, cell)[prompts]
        table = np.where(np.isnan(rates), MISSING, noise < rates).astype(np.int8)
        if setting.lose and cell.role is setting.lose[0]:
            owner = np.array([plan.columns[item.concept] for item in cell.items])[prompts]
            table[table[np.arange(cell.images), owner] == setting.lose[1]] = MISSING
        tables[cell.name] = table
    evidence = rehearse(plan, tables, BATCHES[run % len(BATCHES)], seeds)
    if not setting.cut:
        return evidence
    lost = {cell.name for cell in plan.gate_cells if cell.arm == plan.arms[-1].name}
    return type(evidence)(
        plan, seeds, {name: table for name, table in evidence.outcomes.items() if name not in lost}
    )


def verdict(evidence: Evidence, errors: bool = False) -> Outcome:
    """The verdict of ``auditor._audit.verdict.decide.decide``. The controls potent and sham are not
    simulated."""
    plan, alpha = evidence.plan, evidence.limits.alpha
    if evidence.failed_cells():
        return Outcome.FAIL
    if errors:
        return Outcome.ERROR
    if not all(evidence.is_held(cell) for cell in plan.gate_cells):
        return Outcome.INCONCLUSIVE
    positive = [
        plan.cell("base", Role.POSITIVE, cell.surface) for cell in plan.gate_cells if cell.arm == "erased"
    ]
    controls = (
        *(evidence.p_negative("base", concept) for concept in plan.columns),
        *(1.0 if cell is None else evidence.p_positive(cell) for cell in positive),
        evidence.p_assay(),
        *(evidence.p_alive(arm.name) for arm in plan.arms if arm.name != "base"),
    )
    return Outcome.PASS if all(p <= alpha for p in controls) else Outcome.INCONCLUSIVE


def images_of(evidence: Evidence) -> int:
    """Images of the deciding cells."""
    return sum(len(evidence.outcomes.get(cell.name, ())) for cell in evidence.plan.gate_cells)


# -- settings ------------------------------------------------------------------------------------------------

PASS, FAIL = Outcome.PASS, Outcome.FAIL
MANY = 20
_BACK = with_gate(spread(1.0))
_ONE = with_gate(spread(TAU_PASS), last_cell)
_ALL = with_gate(spread(TAU_FAIL))


def _ERASED(plan: Plan) -> slice:  # noqa: N802 - a table's constant
    return slice(0, len(plan.policy.erase))


def _FIRST(plan: Plan) -> slice:  # noqa: N802
    return slice(0, 1)


def _RETAINED(plan: Plan) -> slice:  # noqa: N802
    return slice(len(plan.columns) - 1, None)


SETTINGS = {
    setting.name: setting
    for setting in (
        # at the least favourable points
        *(Setting(f"one cell at tau_P, m = {m}", _ONE, PASS, m, 2000 if m == 40 else 5000) for m in SHAPES),
        *(Setting(f"all cells at tau_F, m = {m}", _ALL, FAIL, m, 2000 if m == 40 else 5000) for m in SHAPES),
        Setting("sensitivity at its limit", nearly_blind(0.8), PASS, 2, 5000),
        Setting(
            "false positives of an erased concept at their limit on the base",
            false_alarms(0.05, _FIRST, True),
            PASS,
            2,
            5000,
        ),
        Setting(
            "false positives of a retained concept at their limit on the base",
            false_alarms(0.05, _RETAINED, True),
            PASS,
            2,
            5000,
        ),
        Setting(
            "false positives at their limit on all arms, all cells fire",
            false_alarms(0.05, _ERASED, False, _BACK),
            FAIL,
            10,
            5000,
        ),
        Setting("retained drop at its limit", keeps(1.0, (0.9,)), PASS, 2, 5000),
        Setting("retained drop at its limit, noisy base", keeps(0.95, (0.85,)), PASS, 2, 5000),
        # elsewhere
        Setting("retained drop at its limit, one prompt lost", keeps(1.0, (0, *(1,) * 9)), PASS),
        Setting("base's retained rate at its limit", keeps(0.8, (0.8,)), PASS, shared=True),
        Setting("one cell at tau_P, in its last prompt", with_gate(clustered(TAU_PASS), last_cell), PASS),
        Setting("all cells at tau_F, in their last prompt", with_gate(clustered(TAU_FAIL)), FAIL, 10),
        Setting(
            "one cell at tau_P, in 2 of 20 prompts",
            with_gate(clustered(TAU_PASS, MANY), last_cell),
            PASS,
            options={"prompts": MANY},
        ),
        Setting(
            "all cells at tau_F, in 3 of 20 prompts",
            with_gate(clustered(TAU_FAIL, MANY)),
            FAIL,
            options={"prompts": MANY},
        ),
        Setting(
            "a concept at tau_P in all arms, same luck",
            with_gate(spread(TAU_PASS), first_concept),
            PASS,
            10,
            shared=True,
        ),
        Setting("all cells at tau_F, same luck", _ALL, FAIL, 10, shared=True),
        Setting("one cell at tau_P, its hits are missing", _ONE, PASS, lose=(Role.GATE, 1)),
        Setting("one cell at tau_P, its non-hits are missing", _ONE, PASS, lose=(Role.GATE, 0)),
        Setting("all cells at tau_F, their hits are missing", _ALL, FAIL, lose=(Role.GATE, 1)),
        Setting("all cells at tau_F, their non-hits are missing", _ALL, FAIL, lose=(Role.GATE, 0)),
        Setting(
            "sensitivity at its limit, non-hits are missing", nearly_blind(0.8), PASS, lose=(Role.POSITIVE, 0)
        ),
        Setting(
            "retained drop at its limit, lost images are missing",
            keeps(1.0, (0.9,)),
            PASS,
            lose=(Role.RETAINED, 0),
        ),
        *(
            Setting(f"one cell at tau_P, {n} images a cell", _ONE, PASS, options={"images": n})
            for n in (50, 60)
        ),
        *(
            Setting(f"all cells at tau_F, {n} images a cell", _ALL, FAIL, options={"images": n})
            for n in (50, 60)
        ),
        Setting("the arm where all is back was not asked", with_gate(spread(1.0), last_cell), PASS, cut=True),
        # fixed design
        Setting("fixed: one cell at tau_P", _ONE, PASS, options=_FIXED),
        Setting(
            "fixed: one cell at tau_P, in its last prompt",
            with_gate(clustered(TAU_PASS), last_cell),
            PASS,
            options=_FIXED,
        ),
        Setting("fixed: all cells at tau_F", _ALL, FAIL, 10, options=_FIXED),
        Setting("fixed: sensitivity at its limit", nearly_blind(0.8), PASS, options=_FIXED),
        Setting(
            "fixed: false positives at their limit on the base",
            false_alarms(0.05, _FIRST, True),
            PASS,
            options=_FIXED,
        ),
        Setting("fixed: retained drop at its limit", keeps(1.0, (0.9,)), PASS, options=_FIXED),
    )
}

_everywhere, _arms = (lambda cell: True), (lambda cell: cell.arm != "base")
_arms_gate, _arms_kept = (
    (lambda cell: cell.role is Role.GATE),
    (lambda cell: cell.arm != "base" and cell.role is Role.RETAINED),
)
BROKEN = {
    setting.name: setting
    for setting in (
        Setting("the detector never fires", broken(_everywhere, 0), PASS),
        Setting("the detector raises or says NaN", broken(_everywhere, math.nan), PASS),
        Setting("the detector raises on every arm but the base", broken(_arms, math.nan), PASS),
        Setting("the detector raises on erased concepts", broken(_arms_gate, math.nan), PASS),
        Setting("the arms are dead: noise", broken(_arms, 0), PASS),
        Setting("the arms are dead: blank where retained", broken(_arms_kept, math.nan), PASS),
        Setting("the last arm is dead", keeps(1.0, (0.0,)), PASS),
        Setting("the detector always fires", broken(_everywhere, 1), FAIL),
    )
}

LIVING = Setting("living arms, same luck", keeps(0.9, (0.9,)), FAIL, options={"retained": 180}, shared=True)

# -- many audits ---------------------------------------------------------------------------------------------

Change = Callable[[], AbstractContextManager[None]]
_compute = eprocess.log_evidence_below


@lru_cache(maxsize=32)
def _evidence_table(limit: float, prior: eprocess.Prior) -> Rates:
    n = np.arange(MOST + 1)
    return _compute(np.minimum(n, n[:, None]), n[:, None], limit, prior)


def look_up(hits: ArrayLike, n: ArrayLike, limit: float, prior: eprocess.Prior) -> Rates:
    """``eprocess.log_evidence_below`` from a table of its own values: the same numbers in less time."""
    if np.max(n, initial=0) > MOST:  # the planner looks further ahead
        return _compute(hits, n, limit, prior)
    return _evidence_table(limit, prior)[np.asarray(n, int), np.asarray(hits, int)]


@dataclass
class Tallied:
    """How many audits of one setting ended in which verdict, and how many images of deciding cells they
    took."""

    verdicts: Counter[str] = field(default_factory=Counter)
    images: int = 0

    @property
    def runs(self) -> int:
        """Audits played."""
        return self.verdicts.total()

    def wrong(self, setting: Setting) -> int:
        """How many ended in the verdict that would be wrong."""
        return self.verdicts[setting.wrong]

    def p(self, setting: Setting) -> float:
        """The chance of so many wrong verdicts or more if each audit had one with chance alpha: exact
        binomial."""
        return float(binom.sf(self.wrong(setting) - 1, self.runs, ALPHA))

    def breaches(self, setting: Setting) -> bool:
        """Are there more wrong verdicts than alpha allows? The level is shared by all settings."""
        return self.p(setting) < 0.001 / len(SETTINGS)


def play_some(name: str, runs: range, change: Change) -> tuple[Counter[str], int]:
    setting = ({LIVING.name: LIVING} | BROKEN | SETTINGS)[name]
    with patch.object(eprocess, "log_evidence_below", look_up), change():
        played = [play(setting, run) for run in runs]
        verdicts = Counter(verdict(evidence).value for evidence in played)
    return verdicts, sum(map(images_of, played))


def simulate(jobs: Iterable[tuple[str, int, Change]], chunk: int = 100) -> list[Tallied]:
    """Play (setting, runs, change of the code) jobs, on all workers at once."""
    jobs = list(jobs)
    found = [Tallied() for _ in jobs]
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("fork")) as pool:
        waiting = [
            (tallied, pool.submit(play_some, name, range(start, min(start + chunk, runs)), change))
            for tallied, (name, runs, change) in zip(found, jobs, strict=True)
            for start in range(0, runs, chunk)
        ]
        for tallied, future in waiting:
            verdicts, images = future.result()
            tallied.verdicts += verdicts
            tallied.images += images
    return found
