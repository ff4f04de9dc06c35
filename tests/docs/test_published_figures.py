"""The page of published figures says what its rates give, and no more."""

from __future__ import annotations

import importlib.util
import sys
from math import comb
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def _made() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "make_published_figures", DOCS / "make_published_figures.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


made = _made()
RISES: list[dict[str, Any]] = made.FIGURES["rises"]


def test_the_page_is_what_the_figures_give() -> None:
    page = made.PAGE.read_text(encoding="utf-8")
    assert made.filled(page) == page, "run: python docs/make_published_figures.py"
    assert page.count("<!-- end -->") == len(made.tables())


def test_a_place_that_is_missing_is_said() -> None:
    with pytest.raises(ValueError, match="0 places for 'rises 1'"):
        made.filled("nothing")


def test_another_figure_is_another_page(monkeypatch: pytest.MonkeyPatch) -> None:
    page = made.PAGE.read_text(encoding="utf-8")
    first = RISES[0] | {"rows": RISES[0]["rows"] | {"UCE": ["16.90", "45.07"]}}
    monkeypatch.setattr(made, "FIGURES", dict(made.FIGURES) | {"rises": [first, *RISES[1:]]})
    assert "| UCE | 24/142 | 11.1–24.1 % | 64/142 |" in made.filled(page)
    assert made.filled(page) != page


@pytest.mark.parametrize("table", RISES, ids=lambda table: table["name"])
def test_every_printed_rate_is_a_share_of_n(table: dict[str, Any]) -> None:
    """A slip in a digit or a wrong n would mostly be none."""
    printed = [rate for pair in table["rows"].values() for rate in pair]
    printed += [table["base"]] if "base" in table else []
    assert not [rate for rate in printed if made.fitting(rate, table["n"], table["unit"]) is None]
    assert table["n"] % table["images_per_prompt"] == 0
    assert all(table[key] for key in ("source", "read_in", "n_from", "what"))
    if "no smaller number" in table["n_from"]:
        assert made.smallest_n(printed, table["unit"]) == table["n"]


def test_what_does_not_fit_is_seen() -> None:
    assert made.fitting("6.34", 142, "percent") == 9
    assert made.fitting("6.35", 142, "percent") is None
    assert made.fitting("0.2975", 2793, "share") == 831


def test_what_the_page_says_in_short_is_so() -> None:
    meta, main, *_, unsafe = [made.rises(table) for table in RISES]
    assert [row.name for row in meta if row.shown] == ["SDD", "meta SDD"]
    assert [row.name for row in meta if row.p <= 0.05 and not row.shown] == ["ESD-u-1"]
    assert len(meta) == 10 and all(row.shown for row in main)
    other = made.rises(RISES[2], as_prompts=True)
    assert len(other) == 8 and sum(not row.shown for row in other) == 1
    assert not any(row.shown for row in made.rises(RISES[4], as_prompts=True))
    assert sum(row.shown for row in unsafe) * 2 == len(unsafe) and not any(row.before for row in unsafe)


def test_statistics_agree_with_their_definitions() -> None:
    n, before, after = 12, 1, 5
    tail = sum(comb(n, k) * comb(n, before + after - k) for k in range(after, before + after + 1))
    assert made.rise(before, after, n) == pytest.approx(tail / comb(2 * n, before + after))
    assert made.interval(0, 142)[1] == pytest.approx(1 - 0.025 ** (1 / 142))
    assert made.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert made.holm([0.01, 0.04, 0.03], more=2) == pytest.approx([0.05, 0.12, 0.12])
    assert (
        made.rise(0, made.least_shown(0, 142), 142) <= 0.05 < made.rise(0, made.least_shown(0, 142) - 1, 142)
    )
