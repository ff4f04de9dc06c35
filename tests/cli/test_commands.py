"""The commands: exit codes, one sentence for bad input, no torch where none is needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import auditor
from auditor.report import Outcome, Report
from tests.conftest import DETECTOR
from tests.faults.forks import Forks

pytestmark = pytest.mark.usefixtures("nano")


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "auditor", *arguments], capture_output=True, text=True, check=False
    )


def test_the_process_ends_with_the_verdicts_exit_code(finished: tuple[Report, Path]) -> None:
    report, out = finished
    assert report.verdict.outcome is Outcome.INCONCLUSIVE
    done = run_command("judge", str(out))
    assert done.returncode == 3, done.stderr
    assert "INCONCLUSIVE" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (
            ("audit", "nowhere", "--policy", "micro-person", "--out", "run"),
            2,
            "There is no checkpoint at nowhere",
        ),
        (("audit", "micro", "--policy", "micro-nobody", "--out", "run"), 2, "Cannot read micro-nobody"),
        (("audit", "micro"), 2, "Missing option"),
        (("judge", "nowhere"), 2, "is not the folder of an audit"),
        (
            ("erase", "micro", "--eraser", "mcae", "--policy", "micro-person", "--out", "run"),
            2,
            "no eraser called 'mcae'",
        ),
        (
            (
                "erase",
                "micro",
                "--eraser",
                "esd",
                "--policy",
                "micro-person",
                "--out",
                "run",
                "-o",
                "stepz=3",
            ),
            2,
            "did you mean 'steps'",
        ),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_bad_input_gets_one_sentence_and_its_exit_code(
    forks: Forks,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = forks.call(*arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert sentence in done.stderr
    assert not (tmp_path / "run" / "report.json").exists()


def test_what_nobody_foresaw_ends_with_5_and_not_with_1(
    finished: tuple[Report, Path], tmp_path: Path
) -> None:
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
    done = subprocess.run(
        [sys.executable, "-m", "auditor", "judge", str(out)],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert done.returncode == 3, done.stderr


def test_importing_and_help_load_no_torch() -> None:
    script = """
import sys, auditor, auditor._cli, auditor._audit.plan, auditor._audit.verdict.assemble, auditor.policy
auditor._cli.cli.main(["--help"], standalone_mode=False)
assert not {"torch", "diffusers", "transformers", "open_clip"} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_plan_and_plugins_load_no_torch() -> None:
    for arguments in (["plan", "--policy", "micro-person"], ["plugins", "--format", "json"]):
        script = (
            f"import sys; from auditor._cli import cli; cli.main({arguments!r}, standalone_mode=False); "
            "assert 'torch' not in sys.modules"
        )
        done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    names = {row["name"] for row in json.loads(done.stdout)}
    assert {
        "in-domain",
        "out-of-domain",
        "clip-tercile",
        "clip-zero-shot",
        "esd",
        "mace",
        "html",
        "json",
    } <= names


def test_public_names_are_what_is_exported() -> None:
    assert auditor.__all__ == sorted(auditor.__all__, key=lambda name: (name.islower(), name))
    for name in auditor.__all__:
        assert getattr(auditor, name) is not None
    assert DETECTOR["use"] == "clip-zero-shot" and os.environ["HF_HUB_OFFLINE"] == "1"


def test_what_a_plugin_is_told_is_shown_without_a_broken_character(forks: Forks) -> None:
    for name in ("mace", "clip-tercile", "by-domain"):
        done = forks.call("plugins", "show", name)
        assert done.returncode == 0 and "Options" in done.stdout
        assert "\N{REPLACEMENT CHARACTER}" not in done.stdout
