"""``auditor runs``: many runs in a table and on an index page, broken and unfinished ones among them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from auditor._audit.runs import runs_below
from auditor._cli import cli
from auditor.report import Report
from auditor.report.voice import headline
from tests.population import report_over

pytestmark = pytest.mark.usefixtures("nano")


@pytest.fixture
def folder(finished: tuple[Report, Path], tmp_path: Path) -> Path:
    """Runs of every kind, and folders that are none."""
    _, run = finished
    for name in ("a/whole", "b", "c", "d", "e"):
        shutil.copytree(run, tmp_path / name)
    lines = (tmp_path / "b" / "journal.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "b" / "journal.jsonl").write_text("".join(lines[:4]), encoding="utf-8")
    for name in ("report.json", "report.html"):
        (tmp_path / "b" / name).unlink()
    (tmp_path / "c" / "report.json").write_text("{ no report", encoding="utf-8")
    (tmp_path / "d" / "manifest.json").write_text("[]", encoding="utf-8")
    (tmp_path / "d" / "report.json").unlink()
    evil = json.loads((tmp_path / "e" / "report.json").read_text(encoding="utf-8"))
    evil["verdict"]["outcome"] = "PASS"
    (tmp_path / "e" / "report.json").write_text(json.dumps(evil), encoding="utf-8")
    evil["checkpoint"]["source"] = "/home/me/<script>\x1b[31m"
    evil["verdict"]["outcome"] = "INCONCLUSIVE"
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "report.json").write_text(json.dumps(evil), encoding="utf-8")
    (tmp_path / "erased").mkdir()
    (tmp_path / "erased" / "model_index.json").write_text("{}", encoding="utf-8")
    return tmp_path


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["runs", *map(str, arguments)])


def test_every_run_is_a_row_whatever_became_of_it(folder: Path, finished: tuple[Report, Path]) -> None:
    rows = {run.name: run for run in runs_below(folder)}
    assert list(rows) == ["a/whole", "b", "c", "d", "e", "f"]
    report, _ = finished
    whole = rows["a/whole"]
    assert (whole.state, whole.verdict) == ("finished", report.verdict.outcome)
    assert (whole.policy_digest, whole.checkpoint_digest) == (report.policy_digest, report.checkpoint.digest)
    assert whole.sentence == headline(report) and whole.date == report.provenance.started
    assert whole.worst_rate == max(cell.rate or 0 for cell in report.cells if cell.state)
    b = rows["b"]
    assert (b.state, b.verdict, b.so_far) == ("unfinished", None, "INCONCLUSIVE")
    assert b.sentence.startswith("Not finished")
    assert rows["c"].state == rows["d"].state == rows["e"].state == "broken"
    assert "is no report" in rows["c"].sentence and "manifest" in rows["d"].sentence
    assert "is not what its journal gives" in rows["e"].sentence
    assert (rows["f"].state, rows["f"].verdict, rows["f"].so_far) == (
        "unverified",
        None,
        report.verdict.outcome,
    )
    assert all(rows[name].verdict is None for name in "bcdef")


def test_a_folder_that_is_a_run_itself_is_one_row(folder: Path) -> None:
    (run,) = runs_below(folder / "a" / "whole")
    assert (run.name, run.state) == ("whole", "finished")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
def test_a_folder_that_cannot_be_looked_into_is_a_row(folder: Path) -> None:
    (folder / "a").chmod(0)
    rows = {run.name: run for run in runs_below(folder)}
    (folder / "a").chmod(0o755)
    assert rows["a"].state == "broken" and "cannot be looked into" in rows["a"].sentence


def test_json_is_one_object_a_run(folder: Path) -> None:
    done = command(folder, "--format", "json")
    found = json.loads(done.stdout)
    assert done.exit_code == 0 and [row["name"] for row in found] == ["a/whole", "b", "c", "d", "e", "f"]
    assert str(folder) not in done.stdout and "/home/me" not in done.stdout


def test_the_table_names_each_and_says_what_is_wrong(folder: Path) -> None:
    done = command(folder)
    assert done.exit_code == 0 and "\x1b" not in done.stdout
    for word in ("a/whole", "INCONCLUSIVE", "broken", "so far", "c: ", "is no report"):
        assert word in done.stdout
    assert not (folder / "index.html").exists(), "only where it is asked for"


def test_the_page_links_the_pages_that_are_there(folder: Path) -> None:
    done = command(folder, "--page", folder / "site" / "index.html")
    page = (folder / "site" / "index.html").read_text(encoding="utf-8")
    assert done.exit_code == 0 and 'href="../a/whole/report.html"' in page
    assert 'href="../b/report.html"' not in page and "<script>" not in page
    assert "over ordinary updates" not in page, "no run claims a share"
    assert "default-src 'none'" in page and "5 without a verdict" in page
    assert str(folder) not in page and "/home/me" not in page


def test_a_claim_over_updates_has_its_share_in_the_list(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.json").write_text(report_over(24).model_dump_json(), encoding="utf-8")
    (run,) = runs_below(tmp_path)
    assert run.share_upper == pytest.approx(0.1534, abs=1e-4)
    assert (run.updates or "").startswith("24 updates read of at most 24, 0 not clean, 0 back; ")
    assert json.loads(command(tmp_path, "--format", "json").stdout)[0]["updates"] == run.updates
    done = command(tmp_path, "--page", tmp_path / "index.html")
    assert "run: over ordinary updates: 24 updates read" in done.stdout
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert '<th scope="col">over ordinary updates</th>' in page and "0 not clean" in page


@pytest.mark.parametrize("what", ["nothing", "nowhere", "a folder for a page"])
def test_what_cannot_be_listed_is_one_sentence(folder: Path, what: str) -> None:
    asked = {
        "nothing": [folder / "erased"],
        "nowhere": [folder / "gone"],
        "a folder for a page": [folder, "--page", folder / "a"],
    }
    done = command(*asked[what])
    assert done.exit_code != 0 and done.exception is not None
    assert getattr(done.exception, "exit_code", None) == 2, done.exception
    assert str(done.exception).endswith(".")
