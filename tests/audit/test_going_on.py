"""An undecided audit, and the command that it prints: the same folder goes on and decides."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from auditor._cli import cli as main
from auditor.errors import UsageError
from auditor.report import Outcome
from auditor.report.compare import read_report
from tests.faults.passing import policy_that_can_pass

SMALL = {"images_per_cell": 10, "retained_per_arm": 100}


def lines_of(out: Path) -> list[dict[str, object]]:
    return [json.loads(text) for text in (out / "journal.jsonl").read_text().splitlines()]


def test_the_printed_command_goes_on_in_the_folder_and_decides(
    erased: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDITOR_CACHE", str(tmp_path / "cache"))
    policy = policy_that_can_pass(tmp_path, sequential=True, budget=SMALL)
    first = ["audit", str(erased), "--policy", "policy.yaml", "--out", "run"]
    done = CliRunner().invoke(main, first)
    assert done.exit_code == 3, done.output
    before, kept = read_report(tmp_path / "run"), lines_of(tmp_path / "run")
    assert before.next_step is not None and before.next_step.command is not None
    command = next(line for line in done.stdout.splitlines() if line.strip().startswith("auditor audit "))
    assert (before.next_step.p_pass or 0) > 0.5 and "--images-per-cell" in command
    for form in ("markdown", "html"):
        shown = CliRunner().invoke(main, ["report", "render", "run", "--format", form, "--stdout"]).stdout
        assert "images" in shown and "per" in shown and "What to do next" in shown

    again = CliRunner().invoke(main, shlex.split(command)[1:])
    report, lines = read_report(tmp_path / "run"), lines_of(tmp_path / "run")
    assert again.exit_code == 0 and report.verdict.outcome is Outcome.PASS, again.output
    assert lines[: len(kept)] == kept, "what was drawn counts"
    assert sum(line["kind"] == "training" for line in lines) == 1, "and nothing is trained again"
    assert report.next_step is None and report.policy_digest == before.policy_digest
    assert report.provenance.attempt == before.provenance.attempt == 1
    assert "--images-per-cell" in report.provenance.command
    assert any(control.name == "earlier" and control.passed for control in report.controls)
    assert CliRunner().invoke(main, ["report", "verify", "run"]).exit_code == 0

    pinned = ["--policy-digest", f"sha256:{policy.digest(_contents(tmp_path))}"]
    more = ["--images-per-cell", "60"]
    assert CliRunner().invoke(main, [*first, *pinned, *more]).exit_code == 0, "a pin is of the file"
    less = CliRunner().invoke(main, [*first, "--images-per-cell", "4"])
    assert isinstance(less.exception, UsageError) and "can only be raised" in str(less.exception)
    smaller = CliRunner().invoke(main, first)
    assert isinstance(smaller.exception, UsageError)
    assert "budget.images_per_cell fell" in str(smaller.exception)


def _contents(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "run" / "manifest.json").read_text())["identity"][
        "contents"
    ]
    return found
