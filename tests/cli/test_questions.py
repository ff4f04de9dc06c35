"""``auditor policy init`` in a terminal: a slip is asked again, and nothing is lost."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from auditor.policy import load_policy

pytestmark = pytest.mark.usefixtures("nano")
_PATIENCE = 60


def _listens() -> None:
    """Ctrl-C is heard, also where the tests were started in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def converse(folder: Path, *answers: str) -> tuple[int, str]:
    """The exit code and all that was said in a terminal in which each question gets the next answer; after
    the last one Ctrl-C."""
    ours, theirs = pty.openpty()
    line = [sys.executable, "-m", "auditor", "policy", "init", "gate.yaml"]
    with subprocess.Popen(
        line, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, preexec_fn=_listens
    ) as process:
        os.close(theirs)
        said, open_answers, until = "", list(answers), time.monotonic() + _PATIENCE
        asked = 0
        while time.monotonic() < until and process.poll() is None:
            if not select.select([ours], [], [], 0.2)[0]:
                continue
            try:
                said += os.read(ours, 4096).decode(errors="replace")
            except OSError:  # the other end is closed
                break
            if len(re.findall(r"\?(?: \[[^\]]*\])?: ", said)) > asked:
                asked += 1
                if open_answers:
                    os.write(ours, (open_answers.pop(0) + "\n").encode())
                else:
                    time.sleep(1)  # Python hears it once it waits for a line, and not a moment before
                    process.send_signal(signal.SIGINT)
        try:
            code = process.wait(_PATIENCE)
        finally:
            process.kill()
    os.close(ours)
    return code, said


def test_a_slip_is_asked_again(tmp_path: Path) -> None:
    code, said = converse(
        tmp_path, "nowhere", "micro", "style", "people", "Borin Talvek", "borin talvek", "Zelda Mirkov"
    )
    assert code == 0, said
    assert "There is no checkpoint at nowhere" in said.replace("\r\n", "")
    assert "draws people and objects alone" in said and "erased and kept at once" in said
    policy = load_policy(tmp_path / "gate.yaml")
    assert policy.erase[0].name == "Borin Talvek" and policy.retain[0].name == "Zelda Mirkov"
    assert len(policy.retain) == 6


def test_what_was_answered_is_a_command_to_go_on_with(tmp_path: Path) -> None:
    code, said = converse(tmp_path, "micro", "people", "Borin Talvek")
    assert code == 130 and not (tmp_path / "gate.yaml").exists()
    assert "auditor policy init gate.yaml --domain people --base micro --erase 'Borin Talvek'" in said
