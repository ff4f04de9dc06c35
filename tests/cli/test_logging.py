"""What the library does can be followed: by a program that asks for it, and with ``--debug``."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from auditor._checkpoint import open_checkpoint
from tests.faults.forks import Forks

pytestmark = pytest.mark.usefixtures("nano")


def test_a_program_that_asks_is_told_what_was_admitted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="auditor"):
        opened = open_checkpoint("micro")
    assert opened.digest in caplog.text and "admitted micro" in caplog.text


def test_a_program_that_does_not_ask_is_told_nothing(tmp_path: Path) -> None:
    code = "from auditor._checkpoint import open_checkpoint; open_checkpoint('micro')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_debug_logs_to_standard_error_and_leaves_standard_output_alone(forks: Forks) -> None:
    quiet = forks.call("inspect", "--full", "micro")
    told = forks.call("--debug", "inspect", "--full", "micro")
    assert quiet.returncode == told.returncode == 0
    assert told.stdout == quiet.stdout
    assert "auditor._checkpoint" in told.stderr and "auditor._checkpoint" not in quiet.stderr
