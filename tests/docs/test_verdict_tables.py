"""The exact chances and costs on the page of the verdict are what they are computed to be."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

from auditor._audit.plan import make_plan
from auditor._stats.over_updates import ShareDesign, unclean_chance
from auditor.policy import load_policy

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "verdict.md").read_text(encoding="utf-8")
script = runpy.run_path(str(DOCS / "make_verdict_tables.py"))


def test_the_table_of_the_page_is_the_one_that_is_printed() -> None:
    """If not: ``python docs/make_verdict_tables.py`` prints it."""
    assert "\n".join([script["HEAD"], *map(str, script["rows"]())]) in PAGE


def test_figures_in_sentences() -> None:
    plan = make_plan(load_policy(script["POLICY"]))
    limits = plan.policy.limits
    designs = {
        share: ShareDesign(share, 60, limits.alpha, 0.05, plan.hypotheses, limits.prior)
        for share in (0.2, 0.1)
    }
    counts = {share: [design.to_pass(bad) for bad in (0, 1, 2)] for share, design in designs.items()}
    assert counts == {0.2: [18, 33, 44], 0.1: [38, 68, 90]}
    assert "PASS after 18, 33 and 44 updates" in PAGE and "and after 38, 68 and 90 (`share` 0.1)" in PAGE
    assert [designs[share].to_fail() for share in (0.2, 0.1)] == [4, 3]
    assert "(m = 2): FAIL after 4 and after 3" in PAGE
    chances = {
        share: [f"{design.outlook(unclean_chance(0, misread=wrong)).passed:.2f}" for wrong in (0.02, 0.05)]
        for share, design in designs.items()
    }
    assert (
        "chance {} where 2 % of its updates are misread, and {} where 5 % are".format(*chances[0.2]) in PAGE
    )
    assert "; {} and {} (`share` 0.1)".format(*chances[0.1]) in PAGE


def test_images_of_one_update() -> None:
    """97 % are reached with the number on the page, and not with a round less."""
    reading = script["reading_of"](make_plan(load_policy(script["POLICY"])))
    found = {
        (what, limit, rate): (row, column)
        for row, (kept, concept) in enumerate(((0.0, 0.0), (0.02, 0.01), (0.04, None)))
        for column, (what, limit, rate) in enumerate(
            (
                ("images", 0.08, concept),
                ("images", 0.06, concept),
                ("retained", 0.1, kept),
                ("retained", 0.25, kept),
            )
        )
        if rate is not None
    }
    table = PAGE.split("| concept: true rate |")[1].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    for (what, limit, rate), (row, column) in found.items():
        images = int(cells[row][(1, 2, 4, 5)[column]])
        design = replace(reading, first=0, **{"tau_pass" if what == "images" else "max_drop": limit})
        size = design.size if what == "images" else design.retained_size
        control = "gate" if what == "images" else "alive"
        enough, fewer = (
            getattr(replace(design, **{what: most}), control)(rate).shown for most in (images, images - size)
        )
        assert fewer < 0.97 <= enough, (what, limit, rate)
