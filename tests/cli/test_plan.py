"""``auditor plan``: the device, the memory of each phase, the minutes of this device at this model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from auditor._audit.speed import Speed, keep_speed, kept_speed
from auditor._cli import cli
from auditor._process.device import device_kind
from auditor.errors import UsageError

pytestmark = pytest.mark.usefixtures("nano")


def test_plan_says_device_and_memory_and_calibrates(tmp_path: Path) -> None:
    asked = ["plan", "micro", "--policy", "micro-person", "--cache", str(tmp_path)]
    done = CliRunner().invoke(cli, [*asked, "--calibrate"])
    assert done.exit_code == 0, done.output
    assert f"device: {device_kind()}" in done.output
    said = re.search(
        r"memory in GiB, about: drawing [\d.]+, training sets [\d.]+, losses [\d.]+", done.output
    )
    assert said is not None and "enough: a GPU with 8 GB" in " ".join(done.output.split())
    (kept,) = (tmp_path / "rates").iterdir()
    call = int(kept.stem.rsplit("-", 1)[1])
    speed = kept_speed(tmp_path, device_kind(), call)
    assert speed is not None and "as it was measured" in " ".join(done.output.split())
    keep_speed(tmp_path, Speed(device_kind(), call, 1e3, 1e3, image=0.0, start=0.0, around=1.0))
    again = CliRunner().invoke(cli, asked).output
    assert "of the last audit of such a model" in " ".join(again.split())


def test_without_a_checkpoint_nothing_is_calibrated() -> None:
    done = CliRunner().invoke(cli, ["plan", "--policy", "micro-person", "--calibrate"])
    assert isinstance(done.exception, UsageError) and "needs a CHECKPOINT" in str(done.exception)
