"""The whole path on real models: erase, audit, resume, judge again, and what must not pass."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import auditor
from auditor.errors import RefusedError, UsageError
from auditor.journal import BatchLine, read_journal
from auditor.judging import judge_folder
from auditor.report import Outcome, Report
from tests.conftest import DETECTOR, short_policy

SMALL = {"images_per_cell": 10, "retained_per_arm": 10}


def policy_file(folder: Path, **changes: object) -> Path:
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(short_policy(**changes).model_dump(mode="json")))
    return path


@pytest.fixture(scope="module")
def finished(erased: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """One short audit, run once for this module."""
    folder = tmp_path_factory.mktemp("audit")
    out = folder / "run"
    return auditor.audit(str(erased), policy_file(folder, budget=SMALL), out, cache=folder / "cache"), out


def test_an_audit_draws_everything_it_planned(finished: tuple[Report, Path]) -> None:
    report, out = finished
    assert report.ledger.whole and report.ledger.planned == 65
    assert report.training[0].images == 10 and len(report.training[0].concepts) == 2
    assert not set(report.training[0].concepts) & {"Borin Talvek", "Zelda Mirkov", "Dorval Quint"}
    for picture in report.pictures:
        assert (out / "images" / f"{picture.image}.png").is_file()
    assert {path.name for path in out.iterdir()} == {"manifest.json", "journal.jsonl", "images", "arms", "report.json", "report.html"}


def test_the_report_reads_back_and_judging_again_gives_the_same_bytes(finished: tuple[Report, Path]) -> None:
    report, out = finished
    before = {name: (out / name).read_bytes() for name in ("report.json", "report.html")}
    assert Report.model_validate_json(before["report.json"]) == report == judge_folder(out)
    assert before == {name: (out / name).read_bytes() for name in before}


def test_the_same_call_again_draws_nothing(finished: tuple[Report, Path], erased: Path) -> None:
    report, out = finished
    lines = (out / "journal.jsonl").read_bytes()
    assert auditor.audit(str(erased), out.parent / "policy.yaml", out, cache=out.parent / "cache") == report
    assert (out / "journal.jsonl").read_bytes() == lines


def test_another_audit_of_the_same_base_takes_its_pictures_from_the_cache(
    finished: tuple[Report, Path], erased: Path, tmp_path: Path
) -> None:
    _, out = finished
    auditor.audit(str(erased), out.parent / "policy.yaml", tmp_path / "run", cache=out.parent / "cache")
    cached = [
        line.cached for line in read_journal(tmp_path / "run" / "journal.jsonl") if isinstance(line, BatchLine) and line.arm == "base"
    ]
    assert cached and all(cached)


def test_the_base_itself_is_refused(tmp_path: Path, policy: object) -> None:
    with pytest.raises(RefusedError, match="nothing was erased"):
        auditor.audit("micro", policy_file(tmp_path), tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"candidates": ["Borin Talvek", "Imka Soren"]}, "needs 2 concepts and has 1"),
        ({"candidates": ["Imka Soren", "Yara Belmos"], "prompts": ["a portrait of {} with Borin Talvek"]}, "names 'borin talvek'"),
        ({"candidates": []}, "nothing to train on"),
    ],
)
def test_an_erased_concept_in_a_training_set_is_refused(erased: Path, tmp_path: Path, options: dict[str, object], sentence: str) -> None:
    probes = [{"use": "in-domain", "doses": [1], "options": {"names": 2, "images_per_prompt": 1} | options}]
    with pytest.raises(UsageError, match=sentence):
        auditor.audit(str(erased), policy_file(tmp_path, probes=probes, budget=SMALL), tmp_path / "run", cache=tmp_path)


def test_a_base_given_on_the_command_line_replaces_none(erased: Path, tmp_path: Path) -> None:
    report = auditor.audit(str(erased), policy_file(tmp_path, base="none", budget=SMALL), tmp_path / "run", base="micro", cache=tmp_path)
    assert report.base is not None and report.policy["base"]["source"] == "micro"
    assert report.ledger.whole


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "auditor", *arguments], capture_output=True, text=True, check=False)


def test_the_process_ends_with_the_verdicts_exit_code(finished: tuple[Report, Path]) -> None:
    report, out = finished
    assert report.verdict.outcome is Outcome.INCONCLUSIVE
    done = run_command("judge", str(out))
    assert done.returncode == 3, done.stderr
    assert "INCONCLUSIVE" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("audit", "nowhere", "--policy", "micro-person", "--out", "run"), 2, "There is no checkpoint at nowhere"),
        (("audit", "micro", "--policy", "micro-nobody", "--out", "run"), 2, "Cannot read micro-nobody"),
        (("audit", "micro"), 2, "Missing option"),
        (("judge", "nowhere"), 2, "is not the folder of an audit"),
        (("erase", "micro", "--eraser", "mcae", "--policy", "micro-person", "--out", "run"), 2, "no eraser called 'mcae'"),
        (("erase", "micro", "--eraser", "esd", "--policy", "micro-person", "--out", "run", "-o", "stepz=3"), 2, "did you mean 'steps'"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_bad_input_gets_one_sentence_and_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_command(*arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert sentence in done.stderr
    assert not (tmp_path / "run" / "report.json").exists()


def test_what_nobody_foresaw_ends_with_5_and_not_with_1(finished: tuple[Report, Path], tmp_path: Path) -> None:
    """Python ends with 1 after an exception, and 1 means FAIL."""
    _, out = finished
    broken = tmp_path / "run"
    shutil.copytree(out, broken)
    (broken / "report.json").unlink()
    (broken / "report.json").mkdir()  # cannot be replaced by a file
    assert run_command("judge", str(broken)).returncode == 5
    (broken / "manifest.json").write_text('{"identity": {}}')
    assert run_command("judge", str(broken)).returncode == 2


def test_a_closed_pipe_does_not_change_the_exit_code(finished: tuple[Report, Path]) -> None:
    _, out = finished
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "auditor", "judge", str(out)], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert done.returncode == 3, done.stderr


def test_importing_and_help_load_no_torch() -> None:
    script = """
import sys, auditor, auditor.cli, auditor.plan, auditor.judge, auditor.policy
auditor.cli.cli.main(["--help"], standalone_mode=False)
assert not {"torch", "diffusers", "transformers", "open_clip"} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_plan_and_plugins_load_no_torch() -> None:
    for arguments in (["plan", "--policy", "micro-person"], ["plugins", "--format", "json"]):
        script = (
            f"import sys; from auditor.cli import cli; cli.main({arguments!r}, standalone_mode=False); assert 'torch' not in sys.modules"
        )
        done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    names = {row["name"] for row in json.loads(done.stdout)}
    assert {"in-domain", "out-of-domain", "clip-tercile", "clip-zero-shot", "esd", "mace", "html", "json"} <= names


def test_public_names_are_what_is_exported() -> None:
    assert auditor.__all__ == sorted(auditor.__all__, key=lambda name: (name.islower(), name))
    for name in auditor.__all__:
        assert getattr(auditor, name) is not None
    assert DETECTOR["use"] == "clip-zero-shot" and os.environ["HF_HUB_OFFLINE"] == "1"
