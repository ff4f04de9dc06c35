"""What reading after every round saves: exact mean images of a cell, beside a fixed design that holds
tau/4 as often."""

from __future__ import annotations

import json

import pytest

from auditor._stats.design import design, fixed_outlook
from tests.science.simulate import ALPHA, TAU_FAIL, TAU_PASS, K
from tests.science.test_levels import BUILD

pytestmark = pytest.mark.science

M, TAU, PRIOR = 10, 0.1, (0.5, 0.5)
RATES = {"0": 0.0, "tau/4": TAU / 4, "tau/2": TAU / 2, "tau": TAU, "2 tau": 2 * TAU, "0.5": 0.5, "0.8": 0.8}
MIX = {"0": 0.6, "tau/4": 0.2, "2 tau": 0.1, "0.8": 0.1}
"""Weights of a mix of cells, written down before any figure was computed."""


def fixed_size(tau_pass: float, tau_fail: float) -> int:
    """The least number of images, whole rounds or not, at which tau/4 is held with chance 1 - 0.1/m: as
    N_max of a sequential cell."""
    return next(
        n
        for n in range(20, 4000)
        if fixed_outlook(n, TAU / 4, tau_pass, tau_fail, ALPHA, M).held >= 1 - 0.1 / M
    )


@pytest.mark.parametrize(
    ("claim", "tau_pass", "tau_fail"), [("detector", TAU, TAU), ("concept", TAU_PASS, TAU_FAIL)]
)
def test_what_a_cell_costs(claim: str, tau_pass: float, tau_fail: float) -> None:
    cell = design(K, TAU, tau_pass, tau_fail, ALPHA, M, PRIOR, 4000)
    fixed, rows = fixed_size(tau_pass, tau_fail), []
    print(
        f"\nclaim: {claim} (tau_P {tau_pass}, tau_F {tau_fail}), m = {M}: at most {cell.rounds * K} images, "
        f"fixed design {fixed}"
    )
    print(
        f"{'rate':>6} {'images':>7} {'of fixed':>8} {'held':>7} {'failed':>7} {'held, fixed':>12} "
        f"{'failed, fixed':>13}"
    )
    for name, rate in RATES.items():
        one, other = cell.outlook(rate), fixed_outlook(fixed, rate, tau_pass, tau_fail, ALPHA, M)
        rows.append(
            {
                "rate": name,
                "images": one.images,
                "share": one.images / fixed,
                "held": one.held,
                "failed": one.failed,
            }
        )
        numbers = (
            f"{one.images:7.1f} {one.images / fixed:8.3f} {one.held:7.4f} {one.failed:7.4f} "
            f"{other.held:12.4f} {other.failed:13.4f}"
        )
        print(f"{name:>6} {numbers}")
    shares = {row["rate"]: row["share"] for row in rows}
    mix = sum(weight * shares[name] for name, weight in MIX.items())
    print(f"mix of {MIX}: {mix:.3f} of the fixed design")
    BUILD.mkdir(parents=True, exist_ok=True)
    document = {
        "claim": claim,
        "most": cell.rounds * K,
        "fixed": fixed,
        "rates": rows,
        "weights": MIX,
        "mix": mix,
    }
    (BUILD / f"cost-{claim}.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    assert mix < 0.5
    assert shares["0"] < 0.3 and shares["tau/4"] < 0.62 and shares["0.8"] < 0.06
