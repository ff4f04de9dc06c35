"""The claim over ordinary updates in every form: its sentence, its numbers, one finding and not one for each
update."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import yaml

from auditor._cli.terminal import show_report
from auditor.builtins.reporters.tables import COLUMNS, UPDATE_COLUMNS
from auditor.report import Outcome, Population, Report
from auditor.report.voice import kinds, what_was_shown
from auditor.report.words import percent
from tests.builtins.reporters.test_forms import (
    CHECKS,
    FORMS,
    HOSTILE,
    JUNIT,
    SARIF,
    form,
    poisoned,
)
from tests.builtins.reporters.test_html import AXE, CUT, browse, browser
from tests.conftest import erased_well, verdict_of
from tests.population import journal_over, plan_over, report_over

Make = Callable[[str], Report]
MADE: dict[str, Report] = {}


def made(outcome: str) -> Report:
    """24 updates: none brings it back, all do, or the third and the ninth."""
    if outcome not in MADE:
        back = {"PASS": (), "FAIL": range(1, 25), "INCONCLUSIVE": (3, 9)}[outcome]
        MADE[outcome] = report_over(24, *back)
        assert MADE[outcome].verdict.outcome == outcome
    return MADE[outcome]


OUTCOMES = ("PASS", "FAIL", "INCONCLUSIVE")


def over(report: Report) -> Population:
    assert report.population is not None
    return report.population


def of_every_state(report: Report) -> Report:
    """One update of each state among them, one of them without an image, and an old one in its place."""
    first, second, third, fourth, *others = over(report).updates
    bare = {"rates": (), "lost": 0, "retained": 0}
    changed = (
        first,
        second.model_copy(update={"state": "unclean", "why": "It broke: no room."} | bare),
        third.model_copy(update={"state": "not counted", "why": "Nothing to put back."} | bare),
        fourth.model_copy(update={"state": "open"}),
        *others,
    )
    return report.model_copy(update={"population": over(report).model_copy(update={"updates": changed})})


def none_read() -> Report:
    plan = plan_over(24)
    return verdict_of(plan, journal_over(plan, erased_well, skip=lambda planned: bool(planned.cell.update)))


def plain(text: str) -> str:
    """Without the escapes of Markdown and HTML."""
    return text.replace("\\", "").replace("&#39;", "'").replace("%25", "%")


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize(
    "name", ["html", "markdown", "github-summary", "model-card", "eval-results", "junit"]
)
def test_the_sentence_stands_in_every_form(tmp_path: Path, name: str, outcome: str) -> None:
    report = made(outcome)
    text = form(name, report, tmp_path)
    if name == "eval-results":
        text = yaml.safe_load(text)[0]["notes"]
    assert what_was_shown(report) in plain(text)


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("name", ["markdown", "github-summary", "model-card"])
def test_markdown_has_the_kinds_and_the_share(tmp_path: Path, name: str, outcome: str) -> None:
    report = made(outcome)
    text, (share,) = plain(form(name, report, tmp_path)), over(report).shares
    for kind in kinds(over(report)):
        assert f"- {kind.said}" in text
    row = next(line for line in text.splitlines() if line.startswith("| Borin Talvek | 24 |"))
    assert f"| {share.unclean} | {percent(share.upper, 1)} | 20% |" in row


def test_markdown_lists_what_was_not_clean_the_gravest_first(tmp_path: Path) -> None:
    text = form("markdown", of_every_state(made("INCONCLUSIVE")), tmp_path)
    section = text.split("Over ordinary updates\n", 1)[1].split("# Deciding")[0]
    assert re.findall(r"^\| (\d+) \|", section, re.MULTILINE) == ["9", "2", "3", "4"]
    assert "not drawn" in section


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_junit_has_one_case_and_none_an_update(tmp_path: Path, outcome: str) -> None:
    text = form("junit", made(outcome), tmp_path)
    JUNIT.validate(text)
    every = ElementTree.fromstring(text).iter("testcase")
    cases = [each for each in every if each.get("classname") == "updates"]
    assert [each.get("name") for each in cases] == ["share"] and "updates.3" not in text
    kinds_of = [child.tag for child in cases[0]]
    assert kinds_of == {"PASS": [], "FAIL": ["failure"], "INCONCLUSIVE": ["error"]}[outcome]


@pytest.mark.parametrize(
    ("outcome", "rules"),
    [("PASS", []), ("FAIL", ["updates-bring-back"]), ("INCONCLUSIVE", ["updates-undecided"])],
)
def test_sarif_and_annotations_have_one_finding(tmp_path: Path, outcome: str, rules: list[str]) -> None:
    found = json.loads(form("sarif", made(outcome), tmp_path))
    jsonschema.validate(found, SARIF)
    assert [result["ruleId"] for result in found["runs"][0]["results"]] == rules
    lines = form("github-annotations", made(outcome), tmp_path).splitlines()
    assert [line.split("A ")[1].split("::")[0] for line in lines if line.startswith("::error")] == rules


def test_the_finding_is_the_same_one_whatever_was_measured(tmp_path: Path) -> None:
    report = made("INCONCLUSIVE")
    moved = report.model_copy(update={"population": over(report).model_copy(update={"read": 20})})
    prints = [
        json.loads(form("sarif", each, tmp_path))["runs"][0]["results"][0]["partialFingerprints"]
        for each in (report, moved)
    ]
    assert prints[0] == prints[1]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_attestation_has_the_numbers(tmp_path: Path, outcome: str) -> None:
    found = over(made(outcome))
    predicate = json.loads(form("attestation", made(outcome), tmp_path))["predicate"]
    assert predicate["configuration"][1]["annotations"]["over ordinary updates"] == {
        "state": found.state,
        "share of": "updates",
        "limit": 0.2,
        "read": 24,
        "unclean": found.unclean,
        "back": found.back,
        "lower": found.back_lower,
        "upper": found.upper,
    }
    where = {"PASS": "passedTests", "FAIL": "failedTests", "INCONCLUSIVE": "warnedTests"}[outcome]
    assert "over ordinary updates" in predicate[where]


def test_a_share_that_held_is_no_passed_test_where_nothing_was_shown(tmp_path: Path) -> None:
    report = made("PASS")
    verdict = report.verdict.model_copy(update={"outcome": Outcome.INCONCLUSIVE})
    predicate = json.loads(form("attestation", report.model_copy(update={"verdict": verdict}), tmp_path))[
        "predicate"
    ]
    assert predicate["passedTests"] == [] and "over ordinary updates" in predicate["warnedTests"]


def test_a_fail_by_updates_alone_has_no_low_value_on_a_leaderboard(tmp_path: Path) -> None:
    """Right after erasure at most 6.1 % is drawn; after updates it is there."""
    values = {
        each: yaml.safe_load(form("eval-results", made(each), tmp_path))[0]["value"] for each in OUTCOMES
    }
    assert values["FAIL"] == pytest.approx(100 * over(made("FAIL")).shares[0].mean_upper)
    assert values["PASS"] < 8 and values["FAIL"] > 80


def test_a_badge_of_a_pass_says_of_how_many_updates(tmp_path: Path) -> None:
    said = {each: json.loads(form("badge", made(each), tmp_path))["message"] for each in OUTCOMES}
    assert said["PASS"].startswith("PASS (under 20% of updates, policy ")
    assert "updates" not in said["FAIL"] + said["INCONCLUSIVE"]


# -- tables --------------------------------------------------------------------------------------------------


def test_a_table_has_a_row_an_update_and_the_checks_keep_theirs(tmp_path: Path) -> None:
    report = made("INCONCLUSIVE")
    rows = list(csv.DictReader(io.StringIO(form("csv-updates", report, tmp_path))))
    assert tuple(rows[0]) == UPDATE_COLUMNS
    assert [int(row["number"]) for row in rows] == [each.number for each in over(report).updates]
    assert [row["number"] for row in rows if row["state"] == "back"] == ["3", "9"]
    assert {float(row["rate"]) for row in rows} == {0.0, 1.0}
    assert json.loads(rows[0]["drawn"]) == over(report).updates[0].drawn
    checks = list(csv.DictReader(io.StringIO(form("csv", report, tmp_path))))
    assert tuple(checks[0]) == COLUMNS and not any(row["arm"].startswith("updates") for row in checks)


def test_what_has_no_image_has_no_rate(tmp_path: Path) -> None:
    rows = list(
        csv.DictReader(io.StringIO(form("csv-updates", of_every_state(made("INCONCLUSIVE")), tmp_path)))
    )
    assert (rows[1]["state"], rows[1]["rate"], rows[1]["images"]) == ("unclean", "", "")


def test_without_a_population_the_table_is_its_head(tmp_path: Path) -> None:
    text = form("csv-updates", made("PASS").model_copy(update={"population": None}), tmp_path)
    assert text == ",".join(UPDATE_COLUMNS) + "\r\n"


# -- the terminal --------------------------------------------------------------------------------------------


def test_the_terminal_has_a_line_a_kind_and_one_of_the_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    report = made("INCONCLUSIVE")
    show_report(report, tmp_path / "gone")
    shown = capsys.readouterr().out.splitlines()
    names = {kind.name: kind.said for kind in kinds(over(report))}
    assert names["in-domain-lora"] == "in-domain-lora: 17 updates, 1 back, 16 clean"
    assert all(said in shown for said in names.values())
    (line,) = [each for each in shown if each.startswith("over ordinary updates: ")]
    assert line == (
        "over ordinary updates: 24 updates read of at most 24, 2 not clean, 2 back; 0.0% to 33.7% of the "
        "population's updates bring a concept back (each bound at 95%), limit 20%: undecided"
    )


@pytest.mark.parametrize("name", ["html", "markdown", "junit", "sarif", "model-card", "github-annotations"])
def test_where_none_was_read_no_bound_is_said(tmp_path: Path, name: str) -> None:
    report = none_read()
    assert over(report).read == 0 and over(report).bounds == (None, None)
    text = form(name, report, tmp_path)
    assert "none of 24 was read" in text
    assert not re.search(r"\b0 of 0\b|\bof 0 read\b|\b0\.0% (and|to) 100", text), name


# -- the page ------------------------------------------------------------------------------------------------


def section_of(page: str) -> str:
    return page.split('<h2 id="updates">')[1].split('<h2 id="cells">')[0]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_page_has_a_mark_and_a_row_an_update(tmp_path: Path, outcome: str) -> None:
    report = made(outcome)
    page = form("html", report, tmp_path)
    assert '<a href="#updates">over ordinary updates</a>' in page
    section, found = section_of(page), over(report)
    marks = re.findall(
        r'<svg x="([\d.]+)%" y="([\d.]+)"><g class="mark (\S+)"><title>update (\d+): (.*?)</title>', section
    )
    assert sorted(int(number) for *_, number, _ in marks) == [each.number for each in found.updates]
    states = {int(number): state for *_, state, number, _ in marks}
    assert states == {each.number: each.state for each in found.updates}
    left = {int(number): float(x) for x, *_, number, _ in marks}
    assert sorted(left, key=lambda number: left[number]) == sorted(left), (
        "in the order in which they were drawn"
    )
    heights = {state: float(y) for _, y, state, *_ in marks}
    limits = [float(y) for y in re.findall(r'class="limit \w+" x1="14%" x2="98%" y1="([\d.]+)"', section)]
    if "back" in heights:
        assert heights["back"] < min(limits), "above both"
    if "clean" in heights:
        assert heights["clean"] > max(limits)
    assert section.count('<tr class="mark ') == len(found.updates)
    assert "Borin Talvek 0 of 80" in section or outcome == "FAIL"
    assert ("<details open>" in section) == (len(found.updates) <= 12)


def test_every_state_has_a_shape_of_its_own(tmp_path: Path) -> None:
    section = section_of(form("html", of_every_state(made("INCONCLUSIVE")), tmp_path))
    marks = re.findall(r'<g class="mark (\S+)"><title>.*?</title>\s*(<.*?/>)\s*</g>', section, re.DOTALL)
    shapes = dict(marks)
    assert set(shapes) == {"clean", "unclean", "not-counted", "open", "back"}
    assert len(set(shapes.values())) == len(shapes)
    assert "below 0 %: without images" in section


def test_few_updates_stand_open_and_no_population_has_no_section(tmp_path: Path) -> None:
    report = made("PASS")
    few = over(report).model_copy(update={"updates": over(report).updates[:12]})
    assert "<details open>" in section_of(
        form("html", report.model_copy(update={"population": few}), tmp_path)
    )
    without = form("html", report.model_copy(update={"population": None}), tmp_path)
    assert 'id="updates"' not in without and "#updates" not in without


def test_training_sets_of_updates_are_not_listed_one_by_one(tmp_path: Path) -> None:
    report = made("PASS")
    from auditor.report import TrainingSet

    def training(hits: int) -> TrainingSet:
        return TrainingSet(
            probe="updates.7",
            concepts=("Milo Kravant",),
            images=10,
            forbidden_hits={"Borin Talvek": hits},
            digest="0",
        )

    pages = [form("html", report.model_copy(update={"training": (training(n),)}), tmp_path) for n in (0, 1)]
    assert ["<b>updates.7</b>" in page for page in pages] == [False, True]


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("name", FORMS)
def test_hostile_strings_of_updates_do_nothing(tmp_path: Path, name: str, kind: str) -> None:
    evil = HOSTILE[kind]
    text = form(name, poisoned(made("INCONCLUSIVE"), evil), tmp_path)
    if name != "json":
        assert not set(text) & set("\x00\x07\x08\x0b\x1b\u202e\u2066\ufffe\uffff")
    if name != "csv":
        CHECKS.get(name, lambda text: None)(text)
    if name == "csv-updates":
        for row in csv.reader(io.StringIO(text)):
            assert len(row) == len(UPDATE_COLUMNS)
            assert not any(re.match(r"[=@\t\r\n]|[+-](?![\d.])", value) for value in row)


@browser
@pytest.mark.parametrize("medium", ["screen", "print"])
@pytest.mark.parametrize("which", ["every state", "none read"])
def test_nothing_of_it_is_cut_in_any_width(tmp_path: Path, medium: str, which: str) -> None:
    import html

    report = of_every_state(made("INCONCLUSIVE")) if which == "every state" else none_read()
    page, widths = form("html", report, tmp_path), [1280, 840, 640, 390, 320]
    page = page.replace("<details>", "<details open>")
    if medium == "print":
        page = page.replace("@media print", "@media all").replace("@media screen", "@media speech")
        widths = [720]
    framed = f'<body><iframe style="border: 0" srcdoc="{html.escape(page)}"></iframe></body>'
    found, _, asked = browse(tmp_path, framed, CUT.replace("WIDTHS", str(widths)))
    assert found == {str(width): [[], [], True, width] for width in widths} and asked == ""


MARKS = """
const frame = document.querySelector("iframe");
while (!frame.contentDocument.querySelector("main")) await new Promise((done) => setTimeout(done, 20));
const found = [];
for (const width of [1280, 320]) {
  frame.style.width = `${width}px`;
  const picture = frame.contentDocument.querySelector(".strip").getBoundingClientRect();
  for (const each of frame.contentDocument.querySelectorAll(".strip g.mark, .strip text")) {
    const place = each.getBoundingClientRect();
    if (place.left < picture.left - 1 || place.right > picture.right + 1) found.push([width, each.outerHTML]);
  }
}
return found;
"""


@browser
def test_no_mark_and_no_number_leaves_the_picture(tmp_path: Path) -> None:
    import html

    page = form("html", of_every_state(made("INCONCLUSIVE")), tmp_path)
    framed = f'<body><iframe style="border: 0" srcdoc="{html.escape(page)}"></iframe></body>'
    found, _, _ = browse(tmp_path, framed, MARKS)
    assert found == []


@browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_it(tmp_path: Path, scheme: str) -> None:
    page: Any = form("html", of_every_state(made("INCONCLUSIVE")), tmp_path)
    page = page.replace("<details>", "<details open>")
    if scheme == "dark":
        page = page.replace("(prefers-color-scheme: dark)", "(min-width: 1px)")
    script = """const { violations } = await axe.run(document);
        return violations.map((each) => [each.impact, each.id, each.nodes.map((node) => node.html)]);"""
    found, console, asked = browse(tmp_path, page, script, (AXE.read_text(encoding="utf-8"),))
    assert not [each for each in found if each[0] in ("serious", "critical")], found
    assert console == "" and asked == ""


def test_images_of_the_worst_updates_are_shown_where_a_concept_was_seen(tmp_path: Path) -> None:
    two = made("INCONCLUSIVE")
    assert {each.arm for each in two.after_updates} == {"updates.3", "updates.9"}
    assert all(each.hit for each in two.after_updates)
    told = "Images in which the detector saw a concept after an update"
    page = form("html", two.model_copy(update={"next_step": None}), tmp_path)
    assert told in page and "update 3, in-domain" in page and "update 9, in-domain" in page
    assert told not in form("html", made("PASS"), tmp_path)
