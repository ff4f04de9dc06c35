"""Stable Diffusion's true shape with random weights: each step of an audit once, with its time and peak
memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.science

STEPS = (
    "sha256",
    "inspect",
    "admit",
    "load",
    "single file",
    "unet",
    "lora",
    "two denoising steps",
    "one LoRA step",
    "one full step",
)
ONLY_SD1 = ("single file",)
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_each_step_at_true_size(family: str, tmp_path: Path) -> None:
    folder, work, rows = tmp_path / family, tmp_path / "work", {}
    work.mkdir()
    command = [sys.executable, "-m", "tests.science.true_size"]
    subprocess.run([*command, "make", str(folder), family], check=True, cwd=ROOT)
    for step in STEPS:
        if step in ONLY_SD1 and family != "sd1":
            continue
        done = subprocess.run(
            [*command, "measure", step, str(folder), str(work)],
            check=True,
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        rows[step] = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{family} | {step} | {rows[step]['seconds']:.1f} s | {rows[step]['peak_gib']:.1f} GiB",
            flush=True,
        )
    assert rows["inspect"]["seconds"] < 2
    assert rows["sha256"]["seconds"] / rows["admit"]["seconds"] >= 0.7, (
        "admission and digest are slower than 0.7 of sha256 alone"
    )
