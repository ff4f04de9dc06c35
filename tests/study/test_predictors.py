"""What decides: errors are those of settings that the model has not seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from auditor._study.predictors import PROPERTIES, left_out_error, told
from auditor.plugin._loader import make_plugin
from auditor.plugin.contracts import Eraser
from auditor.policy import Concept


def rows_of(seed: int, depends: bool) -> list[dict[str, Any]]:
    """Twelve settings of three replicates; resurgence follows the distance, or nothing."""
    rng = np.random.default_rng(seed)
    rows = []
    for setting in range(12):
        distance, noise = rng.uniform(), rng.normal(0, 0.02)
        for _ in range(3):
            row = {name: float(rng.uniform()) for name in PROPERTIES}
            row |= {
                "attn2_distance": distance,
                "set": f"s{setting}",
                "eraser": "e",
                "lambda1": float(setting % 4),
            }
            row["resurgence"] = (0.8 - 0.8 * distance if depends else rng.uniform()) + noise
            rows.append(row)
    return rows


def test_a_property_that_decides_is_found() -> None:
    found = {each.name: each for each in told(rows_of(0, depends=True))}
    assert found["attn2_distance"].rank is not None and found["attn2_distance"].rank < -0.9
    assert found["attn2_distance"].error < 0.3 * found["mean"].error
    assert found["margin"].error > 0.8 * found["mean"].error
    assert {"lambda1", "all"} <= found.keys()


def test_properties_that_decide_nothing_are_no_better_than_the_mean() -> None:
    found = told(rows_of(1, depends=False))
    assert all(each.error > 0.85 * found[0].error for each in found[1:])


def test_replicates_of_a_setting_do_not_predict_each_other() -> None:
    """A column that only names the setting fits the others perfectly where they may be seen, and tells
    nothing where they may not."""
    rng = np.random.default_rng(2)
    groups = [number // 3 for number in range(36)]
    target = rng.uniform(size=12)[groups] + rng.normal(0, 0.01, size=36)
    dummies = [np.array([float(group == one) for group in groups]) for one in range(11)]
    assert left_out_error(dummies, target, range(36)) < 0.1 * left_out_error([], target, groups)
    assert left_out_error(dummies, target, groups) >= left_out_error([], target, groups)
    with pytest.raises(ValueError, match="one setting"):
        left_out_error([], target, ["x"] * 36)


def test_the_left_out_error_is_that_of_refitting_by_hand() -> None:
    rng = np.random.default_rng(3)
    column, target, groups = rng.normal(size=9), rng.normal(size=9), list("aaabbbccc")
    squares = []
    for name in "abc":
        inside = np.array([group != name for group in groups])
        slope, start = np.polyfit(column[inside], target[inside], 1)
        squares += list(np.square(target[~inside] - slope * column[~inside] - start))
    assert left_out_error([column], target, groups) == pytest.approx(float(np.mean(squares)) ** 0.5)


@pytest.mark.parametrize(
    ("eraser", "options", "expected"),
    [
        ("mace", {}, "a person"),
        ("esd", {}, ""),
        ("uce", {}, ""),
        ("uce", {"guide": "a doll"}, "a doll"),
        ("uce", {"guide": None}, "a person"),
    ],
)
def test_erasers_say_what_a_concept_is_mapped_to(
    eraser: str, options: dict[str, object], expected: str
) -> None:
    plugin: Eraser = make_plugin("erasers", eraser, options)
    assert (
        plugin.mapped_to(Concept(name="Borin Talvek", domain="people", mapping="a person", prompts=("{}",)))
        == expected
    )
