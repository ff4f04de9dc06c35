"""The prepared script, where there is no GPU: every step runs, one that breaks or does not end stops no
other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import types
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.gpu.running import one_step
from tests.gpu.setting import Setting
from tests.gpu.steps import STEPS, WHOLE, Step
from tests.gpu.wheels import NEEDED, pip, write_own
from tests.pretended_gpu.walking import needs_a_pretended_gpu

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "gpu.md"


def run(folder: Path, *options: str) -> tuple[int, list[dict[str, Any]], str]:
    """(exit code, rows, what was printed)."""
    file = folder / "gpu.jsonl"
    line = [sys.executable, "-m", "tests.gpu", str(file), *options]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=1100, env=os.environ)
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return done.returncode, rows, done.stdout + done.stderr


def bad(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row.get("as_expected") is False]


@needs_a_pretended_gpu
def test_the_first_two_steps_run_on_a_pretended_gpu(tmp_path: Path) -> None:
    code, rows, printed = run(tmp_path, "--pretended", "--small", "--steps", "0,1")
    found = {row["what"]: row["found"] for row in rows}
    assert code == 0, printed
    assert found["device"] == "Pretended GPU" and found["precision that is drawn in"] == "torch.bfloat16"
    assert found["errors"] == [] and found["images that no-op controls changed"] == [0]
    drawn, identical = found["replay: images, identical ones"]
    assert drawn == identical > 0
    assert found["waits of a step of dpm-solver++"] == 0


@pytest.mark.science
@pytest.mark.parametrize("kind", ["cpu", pytest.param("pretended", marks=needs_a_pretended_gpu)])
def test_every_step_runs(tmp_path: Path, kind: str) -> None:
    code, rows, printed = run(tmp_path, f"--{kind}", "--small")
    assert code == 0, printed
    assert {row["step"] for row in rows} == {-1, *range(len(STEPS))}
    assert not [row for row in bad(rows) if not row["what"].startswith("waits")], bad(rows)


@pytest.mark.science
@pytest.mark.skipif(torch.cuda.is_available(), reason="There is a GPU here.")
def test_without_a_gpu_the_first_step_says_so_and_nothing_else_runs(tmp_path: Path) -> None:
    code, rows, printed = run(tmp_path, "--steps", "0,1")
    assert code == 1 and {row["step"] for row in rows} == {-1, 0}
    assert "finds no GPU that it can use" in printed


def started(module: Any, folder: Path, limit: float, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """How a step ends whose ``run`` is ``module``."""
    monkeypatch.setitem(sys.modules, "tests.gpu.steps.tried", types.SimpleNamespace(run=module))  # type: ignore[arg-type]
    setting = Setting("cpu", small=False, file=folder / "gpu.jsonl", work=folder)
    return one_step(setting, Step("tried", 60, "?"), limit)[0]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_step_that_does_not_end_is_ended_with_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(setting: Setting) -> None:
        setting.write("so far", 1)
        time.sleep(600)

    began = time.monotonic()
    said = started(endless, tmp_path, 5, monkeypatch)
    assert said == "Step -1 was ended at its limit of 5 s." and time.monotonic() - began < 300
    assert json.loads((tmp_path / "gpu.jsonl").read_text())["found"] == 1


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_step_that_breaks_leaves_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(setting: Setting) -> None:
        raise ZeroDivisionError("too bad")

    assert "broke" in str(started(broken, tmp_path, 300, monkeypatch))
    first, second = map(json.loads, (tmp_path / "gpu.jsonl").read_text().splitlines())
    assert first["found"] == "ZeroDivisionError: too bad" and "broken" in str(second["found"])


def test_a_row_says_what_was_expected_and_whether_it_is_so(tmp_path: Path) -> None:
    setting = Setting("gpu", small=False, file=tmp_path / "gpu.jsonl", work=tmp_path)
    for found in (3.14159, 30.0, None):
        setting.within("n", found, 1, 10, "ms")
    rows = [json.loads(line) for line in setting.file.read_text().splitlines()]
    assert [row["found"] for row in rows] == [3.142, 30.0, None]
    assert [row.get("as_expected") for row in rows] == [True, False, None]
    assert {row["expected"] for row in rows} == {"1 to 10 ms"}


def test_all_steps_fit_into_eight_minutes() -> None:
    assert sum(step.limit for step in STEPS) <= WHOLE == 8 * 60


def test_the_page_says_of_each_step_what_it_asks() -> None:
    page = DOCS.read_text(encoding="utf-8")
    assert [step.asks for step in STEPS if step.asks not in page] == []


def test_what_is_brought_along_has_auditors_version_and_its_lower_bounds(tmp_path: Path) -> None:
    own = Distribution.at(write_own(tmp_path))
    assert own.metadata["Name"] == "auditor" and own.version == "0.2.0"
    line = pip(tmp_path)
    assert "diffusers>=0.38" in line and "--no-deps" in line
    assert not {"torch", "transformers", "numpy"} & set(NEEDED)
