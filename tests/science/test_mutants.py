"""Every safeguard that is taken out is missed: the simulation would notice if the code lost it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from auditor._audit.cells import Role
from tests.science.mutants import MUTANTS, arm_in_seed
from tests.science.simulate import SEEDS, SETTINGS, make_audit, simulate

pytestmark = pytest.mark.science

RUNS = 500


def test_every_mutant_breaches_a_level_that_the_code_keeps() -> None:
    jobs = [(setting, RUNS, change) for change, setting in MUTANTS.values()]
    results = simulate(jobs + [(setting, runs, nullcontext) for setting, runs, _ in jobs])
    print(f"\n{'mutant':40} {'at the setting':62} {'mutant':>7} {'code':>7}")
    missed, blamed = [], []
    for (name, (_, at)), mutant, code in zip(MUTANTS.items(), results, results[len(jobs) :], strict=False):
        setting = SETTINGS[at]
        print(f"{name:40} {at:62} {mutant.wrong(setting) / RUNS:7.3f} {code.wrong(setting) / RUNS:7.3f}")
        missed += [name] * (not mutant.breaches(setting))
        blamed += [at] * code.breaches(setting)
    assert not missed and not blamed


def unpaired(m: int) -> list[str]:
    """Cells whose images do not come from the seeds of the same cell in the erased arm (retained ones: in
    the base)."""
    plan = make_audit(m)
    seeds = {cell.name: [sample.seed for sample in cell.samples(SEEDS)] for cell in plan.cells}
    first = {Role.GATE: "erased", Role.RETAINED: "base"}
    return [
        c.name
        for c in plan.cells
        if c.role in first and seeds[c.name] != seeds[f"{first[c.role]}|{c.role}|{c.surface}"]
    ]


def test_an_arm_in_the_seed_is_noticed_and_costs_the_pairing() -> None:
    """It does not change any level. But arms are no longer compared on the same noise, and a living arm is
    less often shown to live."""
    with arm_in_seed():
        assert unpaired(10)
    assert unpaired(10) == []
    name = "living arms, same luck"
    mutant, code = simulate([(name, RUNS, arm_in_seed), (name, RUNS, nullcontext)])
    print(
        f"\nPASS of living arms: {code.verdicts['PASS'] / RUNS:.3f}, with the arm in the seed: "
        f"{mutant.verdicts['PASS'] / RUNS:.3f}"
    )
    assert mutant.verdicts["PASS"] < 0.8 * code.verdicts["PASS"]
