"""Two reports compared, and the words that every form shares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from auditor._audit.plan import Plan
from auditor.errors import UsageError
from auditor.report import Outcome
from auditor.report.compare import diff, read_report
from auditor.report.voice import findings
from auditor.report.words import control_title, harmless, line, percent
from tests.conftest import erased_well, journal_of, verdict_of


def test_a_report_is_like_itself_and_worse_where_it_no_longer_passes(plan: Plan) -> None:
    well = verdict_of(plan, journal_of(plan, erased_well))
    back = verdict_of(plan, journal_of(plan, lambda planned: True))
    assert diff(well, well) == []
    changes = diff(well, back)
    assert changes[0].what == "verdict" and changes[0].worse
    assert not any(change.worse for change in diff(back, well) if change.what == "verdict")
    assert any(
        change.what.startswith("Borin Talvek on in-domain-lora") and change.worse for change in changes
    )


def test_findings_are_there_where_it_is_no_pass_and_nowhere_else(plan: Plan) -> None:
    well = verdict_of(plan, journal_of(plan, erased_well))
    back = verdict_of(plan, journal_of(plan, lambda planned: True))
    assert well.verdict.outcome is Outcome.PASS and findings(well) == []
    found = findings(back)
    assert found[0].rule == "concept-present" and found[0].severity == "error"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema_version": 99}'])
def test_what_is_no_report_is_said(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(UsageError, match=r"report\.json"):
        read_report(tmp_path)


def test_a_report_is_read_back(tmp_path: Path, plan: Plan) -> None:
    report = verdict_of(plan, journal_of(plan, erased_well))
    (tmp_path / "report.json").write_text(report.model_dump_json())
    assert read_report(tmp_path) == report
    assert json.loads((tmp_path / "report.json").read_text())["schema_version"] == report.schema_version


def test_strings_of_others_are_one_harmless_line() -> None:
    assert (
        line("a\nb\x1b[31m\u202e")
        == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}"
    )
    assert len(line("x" * 1000)) == 500
    assert "::error" not in harmless("::error::x") and "##vso[" not in harmless("##vso[task]")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0.0, "0%"), (1.0, "100%"), (0.0001, "< 0.1%"), (0.9999, "> 99.9%"), (0.5, "50%")],
)
def test_a_share_is_never_rounded_to_none_or_all(value: float | None, shown: str) -> None:
    assert percent(value) == shown


def test_a_control_that_nobody_knows_keeps_its_name() -> None:
    assert control_title("potent") == "took effect"
    assert control_title("of-another-version") == "of-another-version"
