"""How often a verdict is wrong, at the edge of what may be true: at most alpha, to the precision of the
simulation."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from auditor._audit.cells import Role
from auditor._audit.evidence.rehearsal import rehearse
from auditor._audit.evidence.sequential_tests import MISSING, Evidence
from auditor._audit.plan import Plan
from auditor._files.digest import sha256_json
from auditor._journal.lines import (
    ArmLine,
    BatchLine,
    ComparedLine,
    ErrorLine,
    Line,
    RepeatLine,
    Sample,
    ShamLine,
)
from auditor.report import Outcome
from tests.conftest import seen_in, verdict_of
from tests.science.simulate import (
    BROKEN,
    SEEDS,
    SETTINGS,
    Setting,
    images_of,
    make_audit,
    perfect,
    play,
    play_some,
    simulate,
    spread,
    verdict,
    with_gate,
)

pytestmark = pytest.mark.science

BUILD = Path(__file__).parents[2] / "build" / "science"


def test_no_setting_has_more_wrong_verdicts_than_alpha_allows() -> None:
    results = simulate((setting.name, setting.runs, nullcontext) for setting in SETTINGS.values())
    rows, breaches = [], []
    for setting, found in zip(SETTINGS.values(), results, strict=True):
        wrong, cells = found.wrong(setting), len(setting.plan.gate_cells)
        rows.append(
            {
                "setting": setting.name,
                "cells": cells,
                "wrong verdict": setting.wrong.value,
                "runs": found.runs,
                "wrong": wrong,
                "level": wrong / found.runs,
                "p": found.p(setting),
                "mean images a cell": round(found.images / found.runs / cells, 1),
                "verdicts": dict(found.verdicts),
            }
        )
        if found.breaches(setting):
            breaches.append(setting.name)
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "levels.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(f"\n{'setting':66} {'m':>3} {'wrong':>5} {'R':>5} {'x':>4} {'level':>7} {'p':>8} {'images':>6}")
    for row in rows:
        print(
            "{setting:66} {cells:3} {wrong verdict:>5} {runs:5} {wrong:4} {level:7.4f} {p:8.2g} {mean images "
            "a cell:6}".format(**row)
        )
    assert not breaches


def test_what_is_broken_never_passes() -> None:
    results = dict(zip(BROKEN, simulate((name, 200, nullcontext) for name in BROKEN), strict=True))
    assert {name: found.verdicts["PASS"] for name, found in results.items()} == dict.fromkeys(BROKEN, 0)
    assert {name: found.runs for name, found in results.items()} == dict.fromkeys(BROKEN, 200)
    assert results["the detector always fires"].verdicts["FAIL"] == 0


@pytest.mark.parametrize("m", [2, 10, 40])
def test_audits_are_not_harmless_for_never_deciding(m: int) -> None:
    """The worlds that the settings bend are PASS and FAIL when they are not bent."""
    assert verdict(play(Setting("perfect", perfect, Outcome.FAIL, m), 0)) is Outcome.PASS
    assert verdict(play(Setting("all back", with_gate(spread(1.0)), Outcome.PASS, m), 0)) is Outcome.FAIL


def test_evidence_is_the_same_looked_up() -> None:
    for name, setting in SETTINGS.items():
        computed = [play(setting, run) for run in range(3)]
        verdicts = Counter(verdict(evidence).value for evidence in computed)
        assert play_some(name, range(3), nullcontext) == (verdicts, sum(map(images_of, computed)))


# -- the verdict of the simulation is the judge's ------------------------------------------------------------


def journal_lines(evidence: Evidence, error: str | None) -> list[Line]:
    """The journal of an audit that was played: what was drawn, as it would be written down."""
    plan, lines = evidence.plan, list[Line]()
    gate, names = plan.policy.detectors[0].use, tuple(plan.columns)
    for arm in plan.arms:
        if arm.probe is not None:
            lines.append(
                ArmLine(
                    arm=arm.name,
                    seconds=1.0,
                    weights=arm.name,
                    fit_trained=(0.5, 0.52, 0.51),
                    fit_trained_before=(1.0, 1.02, 1.01),
                )
            )
        samples = []
        for cell in plan.cells_of(arm.name):
            for planned, row in zip(cell.samples(SEEDS), evidence.outcomes[cell.name], strict=False):
                there = any(hit != MISSING for hit in row)
                asked = (
                    names
                    if cell.role is Role.RETAINED
                    else tuple(concept.name for concept in plan.policy.erase)
                )
                hits = {name: row[plan.columns[name]] == 1 for name in asked}
                flaw = None if there else "blank"
                image = None if flaw else sha256_json([arm.name, planned.prompt, planned.seed])
                said = {gate: seen_in({name: bool(hit) for name, hit in hits.items()})} if there else {}
                place = {
                    "cell": cell.name,
                    "prompt": planned.prompt,
                    "index": planned.index,
                    "seed": planned.seed,
                }
                samples.append(Sample(**place, image=image, flaw=flaw, observations=said))
        if error == "sample" and arm.name == "erased":
            broken = {"observations": {}, "flaw": None, "error": "the detector raised", "image": "0" * 64}
            samples[-1] = samples[-1].model_copy(update=broken)
        lines.append(BatchLine(arm=arm.name, samples=tuple(samples), seconds=1.0))
    if error == "arm":
        lines.append(ErrorLine(arm="erased", message="out of memory"))
    shams = [ShamLine(probe=name, images=8, different=0) for name in plan.probe_names]
    compared = ComparedLine(
        prompts=9,
        same_vocabulary=True,
        read_otherwise=(),
        parts={"text_encoder": 0.0, "vae": 0.0},
        schedule={},
    )
    return [compared, *lines, *shams, RepeatLine(shown=8, otherwise=0, drawn=8, different=0)]


def random_audit(plan: Plan, rng: np.random.Generator) -> Evidence:
    """An audit of a world drawn at random, good in most ways."""
    level = {
        Role.GATE: rng.choice([0, 0.02, 0.3], p=[0.65, 0.1, 0.25]),
        Role.POSITIVE: rng.choice([1, 0.95, 0.8]),
        Role.PICTURE: 1.0,
        Role.RETAINED: rng.choice([1, 0.95, 0.85]),
    }
    false, missing = rng.choice([0, 0, 0, 0.2]), rng.choice([0, 0, 0, 0.03])
    tables = {}
    for cell in plan.cells:
        samples = cell.samples(SEEDS)
        rates = np.full((cell.images, len(plan.columns)), false if cell.role is Role.RETAINED else 0.0)
        rates[np.arange(cell.images), [plan.columns[sample.concept] for sample in samples]] = level[cell.role]
        table = (rng.random(rates.shape) < rates).astype(np.int8)
        table[rng.random(cell.images) < missing] = MISSING
        tables[cell.name] = table
    return rehearse(plan, tables, int(rng.choice([16, 64])), SEEDS)


def test_the_simulated_verdict_is_the_judges() -> None:
    rng, seen = np.random.default_rng(20260101), []
    small = {"images": 80, "retained": 180}
    plans = [make_audit(2, **small), make_audit(2, sequential=False, **small), make_audit(10, **small)]
    for run in range(300):
        evidence = random_audit(plans[(0, 1, 0, 1, 0, 2)[run % 6]], rng)
        error = rng.choice(["arm", "sample"]) if run % 4 == 0 else None
        judged = verdict_of(evidence.plan, journal_lines(evidence, error)).verdict.outcome
        if error == "sample":
            evidence.outcomes["erased|retained|"][-1] = MISSING
        assert verdict(evidence, errors=error is not None) is judged
        seen.append(judged)
    assert all(seen.count(outcome) >= 15 for outcome in Outcome), {
        outcome: seen.count(outcome) for outcome in Outcome
    }
