"""Model states that were never drawn are said to be not drawn, in every form, and never 0 of 0."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from auditor._audit.cells import Role
from auditor._audit.plan import make_plan
from auditor._cli.terminal import show_report
from auditor.plugin._loader import make_plugin
from auditor.report import Report
from auditor.report.voice import said_of
from auditor.report.words import NOT_DRAWN, bounds, count, gate_cells, is_drawn, state_of
from tests.conftest import erased_well, journal_of, short_policy, verdict_of

ARM = "in-domain-lora"


@pytest.fixture(scope="module")
def report() -> Report:
    """FAIL is proven on the erased model, and nothing else was made or drawn."""
    plan = make_plan(short_policy())
    lines = journal_of(plan, lambda planned: True, skip=lambda planned: planned.cell.arm == ARM)
    kept = [
        line for line in lines if getattr(line, "arm", None) != ARM and line.kind not in ("sham", "repeat")
    ]
    return verdict_of(plan, kept)


def rendered(report: Report, form: str, folder: Path) -> str:
    text: str = make_plugin("reporters", form, {}).render(report, folder).decode()
    return text


def test_data_has_no_bounds_where_nothing_was_drawn(report: Report) -> None:
    cell = next(cell for cell in gate_cells(report) if cell.arm == ARM)
    assert (cell.lower, cell.upper, cell.rate, cell.n) == (None, None, None, 0)
    assert count(cell) == state_of(cell) == NOT_DRAWN and not is_drawn(cell)
    assert said_of(report, cell) == f"Borin Talvek after {ARM}: not drawn."


def test_a_report_of_before_is_shown_alike(report: Report) -> None:
    """Older ones hold the bounds 0 and 1 of a check without images."""
    cell = next(cell for cell in gate_cells(report) if cell.arm == ARM)
    older = cell.model_copy(update={"lower": 0.0, "upper": 1.0})
    assert bounds(older) == (None, None) and count(older) == NOT_DRAWN


@pytest.mark.parametrize(
    "form",
    ["html", "markdown", "junit", "sarif", "csv", "model-card", "github-summary", "github-annotations"],
)
def test_every_form_says_it(report: Report, form: str, tmp_path: Path) -> None:
    text = rendered(report, form, tmp_path)
    assert re.search(NOT_DRAWN, text, re.IGNORECASE)
    assert not re.search(r"\b0 of 0\b|\bOf 0 \b|\b0\.0% (and|to) 100", text), form


def test_the_terminal_says_it(report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_report(report, tmp_path / "gone")
    shown = capsys.readouterr().out
    assert (
        NOT_DRAWN in shown
        and "0 of 0" not in shown
        and "100.0%" not in shown.split("controls:")[0].split(ARM)[1]
    )


def test_a_table_has_the_word_and_no_numbers(report: Report, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(rendered(report, "csv", tmp_path))))
    row = next(row for row in rows if row["arm"] == ARM)
    assert (row["state"], row["rate"], row["lower"], row["upper"]) == (NOT_DRAWN, "", "", "")
    drawn = next(row for row in rows if row["arm"] == "erased")
    assert drawn["state"] == "failed" and float(drawn["lower"]) > 0.5


def test_ci_sees_an_error_with_the_word_and_no_success(report: Report, tmp_path: Path) -> None:
    suite = ElementTree.fromstring(rendered(report, "junit", tmp_path).split("?>", 1)[1])
    case = next(each for each in suite.iter("testcase") if each.get("classname") == f"cells.{ARM}")
    problem = case.find("error")
    assert problem is not None and NOT_DRAWN in (problem.get("message") or "")


def test_controls_seeds_and_steps_that_were_not_come_to_say_so(report: Report) -> None:
    said = {control.name: control.sentence for control in report.controls if control.arm == ARM}
    for name in ("alive", "potent", "sham"):
        assert said[name].startswith("Not drawn"), said
    assert report.replicates[0].sentence == "Not drawn."
    plan = make_plan(short_policy())
    cut = verdict_of(plan, journal_of(plan, erased_well, skip=lambda planned: planned.cell.arm == ARM))
    assert cut.steps[0].sentence == "Borin Talvek after training: not drawn."


def test_what_was_drawn_in_part_is_no_rate_either() -> None:
    plan = make_plan(short_policy(sequential=True, budget={"images_per_cell": 60, "retained_per_arm": 120}))
    last = plan.gate_cells[0].prompts[-1]
    lines = journal_of(
        plan, erased_well, skip=lambda planned: planned.cell.role is Role.GATE and planned.prompt == last
    )
    cell = next(cell for cell in gate_cells(verdict_of(plan, lines)) if cell.arm == ARM)
    assert count(cell) == "48 images, no whole round" and state_of(cell) == "undecided"
    assert bounds(cell) == (None, None)


def test_an_image_of_others_alone_is_no_image(report: Report) -> None:
    """One retained concept: images were drawn, and none is of another concept."""
    plan = make_plan(short_policy(retain=[{"name": "dog", "domain": "objects", "prompts": "paper-objects"}]))
    found = verdict_of(plan, journal_of(plan, erased_well))
    control = next(c for c in found.controls if (c.name, c.concept) == ("negative", "dog"))
    assert not control.sentence.startswith("Not drawn") and json.loads(found.model_dump_json())
