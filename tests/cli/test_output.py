"""Who reads what is printed, in what encoding and how wide, decides neither exit code nor files."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from auditor.report import Report
from auditor.report.voice import reasons
from tests.faults.forks import Forks

pytestmark = pytest.mark.usefixtures("nano")

AUDITOR = (sys.executable, "-m", "auditor")
LOUD = """
import atexit, os, subprocess, sys, threading, time
os.write(1, b"library loaded\\n")
subprocess.run([sys.executable, "-c", "print('child')"])
os.system("echo shell")
print("imported")
atexit.register(print, "library unloaded")
def chatter():
    while True:
        print("thread")
        time.sleep(0.01)
threading.Thread(target=chatter, daemon=True).start()
from auditor.plugin import hookimpl
@hookimpl
def auditor_arm_ready(record): pass
"""
WATCHED = """
import sys
from auditor._cli.live import watch, watch_steps
from auditor._cli.output import leave, settle
settle()
with watch() as progress:
    progress.stage("admitting checkpoints")
    progress.failed("erased", "it broke")
    progress.stopped("enough")
with watch_steps("erasing") as on_step:
    for step in (1, 2):
        on_step("training", step, 2)
leave()
"""


@pytest.fixture
def run(finished: tuple[Report, Path]) -> str:
    return str(finished[1])


def shell(line: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    """A line of bash in which ``auditor`` is this one; its exit code is that of the first part of a pipe."""
    script = f'auditor() {{ "{sys.executable}" -m auditor "$@"; }}; {line}; exit ${{PIPESTATUS[0]}}'
    return subprocess.run(["bash", "-c", script], capture_output=True, check=False, env=os.environ | more)


@pytest.mark.parametrize("how", ["| true", ">&-", ">/dev/full", ">&- 2>&- <&-"])
@pytest.mark.parametrize("form", ["human", "json"])
def test_the_verdicts_exit_code_is_kept_whoever_reads(run: str, form: str, how: str) -> None:
    done = shell(f"auditor judge '{run}' --format {form} {how}")
    assert done.returncode == 3, done.stderr
    assert b"unexpected" not in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("line", "how"),
    [
        ("--help", "| true"),
        ("--version", ">&-"),
        ("policy check micro-person", "| true"),
        ("policy schema", "| true"),
        ("report schema", ">&-"),
        ("report render RUN --format html --stdout", "| true"),
        ("plugins --format json", ">&-"),
        ("plugins", "| true"),
        ("show RUN", "| true"),
    ],
)
def test_a_reader_who_went_away_is_no_error(run: str, line: str, how: str) -> None:
    done = shell(f"auditor {line.replace('RUN', run)} {how}")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("line", ["policy schema", "show RUN"])
def test_output_that_a_full_disk_did_not_take_is_said(run: str, line: str) -> None:
    done = shell(f"auditor {line.replace('RUN', run)} >/dev/full")
    assert done.returncode == 5
    assert done.stderr.count(b"\n") == 1 and b"could not be written: No space left" in done.stderr


def test_a_reader_who_is_slow_gets_all_of_it(run: str) -> None:
    """A pipe that does not block, as node and some CIs give."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    line = [*AUDITOR, "report", "render", run, "--format", "html", "--stdout"]
    with (
        subprocess.Popen(line, stdout=write, stderr=subprocess.PIPE) as process,
        os.fdopen(read, "rb") as pipe,
    ):
        os.close(write)
        time.sleep(1)
        content = pipe.read()
        assert process.wait() == 0, process.stderr.read() if process.stderr else ""
    assert len(content) > 20_000 and content.rstrip().endswith(b"</html>")


@pytest.mark.parametrize(
    "encoding", ["ascii", *(pytest.param(each, marks=pytest.mark.science) for each in ("cp437", "utf-16"))]
)
def test_no_encoding_stops_a_verdict_and_json_stays_whole(run: str, encoding: str) -> None:
    table = shell(f"auditor show '{run}'", PYTHONIOENCODING=encoding)
    assert table.returncode == 0 and "INCONCLUSIVE" in table.stdout.decode(encoding)
    document = shell(f"auditor judge '{run}' --format json", PYTHONIOENCODING=encoding)
    plain = shell(f"auditor judge '{run}' --format json", PYTHONIOENCODING="utf-8")
    assert document.returncode == plain.returncode == 3
    assert json.loads(document.stdout.decode(encoding)) == json.loads(plain.stdout)


def test_the_locale_c_prints_a_table(run: str) -> None:
    done = shell(f"auditor show '{run}'", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0 and b"INCONCLUSIVE" in done.stdout and done.stdout.isascii()


@pytest.mark.parametrize("columns", ["0", "-5", "²", "1", "20", "50", "60", "80", "9" * 5000])
def test_in_every_width_every_check_can_be_read(
    forks: Forks, run: str, finished: tuple[Report, Path], columns: str
) -> None:
    done = forks.call("show", run, environment=os.environ | {"COLUMNS": columns})
    said = done.stdout
    assert done.returncode == 0 and "INCONCLUSIVE" in said
    words = said.replace("│", " ").replace(";", " ").split()
    for cell in finished[0].cells:
        assert {*cell.surface.split(), cell.arm} <= set(words), said
    assert not set("│┃━─┏┡└") & set(said), "no box in a log"


def in_a_terminal(line: Sequence[str], stream: Literal["stdout", "stderr"], **environment: str) -> bytes:
    """What a command that ends with 0 writes to a terminal behind one of its streams."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "FORCE_COLOR")}
    streams: dict[str, Any] = {stream: theirs}
    with subprocess.Popen(line, env=kept | {"TERM": "xterm"} | environment, **streams) as process:
        os.close(theirs)
        said = b""
        try:
            while block := os.read(ours, 65536):
                said += block
        except OSError:  # how a terminal ends
            pass
        assert process.wait() == 0
    os.close(ours)
    return said


def test_a_terminal_wraps_sentences_and_tables_at_words(run: str, finished: tuple[Report, Path]) -> None:
    """The command stays in one line, to be copied."""
    said = in_a_terminal([*AUDITOR, "show", run], "stdout", COLUMNS="80", NO_COLOR="1")
    text = re.sub(r"\x1b\[[\d;]*m", "", said.decode())
    lines = [line.rstrip() for line in text.splitlines()]
    sentence = reasons(finished[0])[0].sentence
    assert "│" in text and sentence not in lines and sentence in " ".join(text.split())
    own = [line for line in lines if not line.strip().startswith(("auditor ", "explained:", "report:"))]
    assert max(map(len, own)) <= 80
    whole = {word for line in lines for word in line.replace("│", " ").split()}
    assert all(cell.arm in whole for cell in finished[0].cells)


@pytest.mark.parametrize("columns", ["0", "20"])
@pytest.mark.parametrize(
    "line", ["plan --policy micro-person", "plugins", "plugins show in-domain", "--help"]
)
def test_other_tables_are_not_empty_either(forks: Forks, line: str, columns: str) -> None:
    done = forks.call(*line.split(), environment=os.environ | {"COLUMNS": columns})
    wanted = {"plan": "in-domain-lora", "plugins": "in-domain", "plugins show": "learning_rate"}
    word = wanted.get(" ".join(line.split()[:2]), wanted.get(line.split()[0], "verdict"))
    assert done.returncode == 0 and word in done.stdout


@pytest.mark.parametrize("line", ["judge RUN", "plugins"])
def test_json_is_alone_on_descriptor_1(run: str, tmp_path: Path, line: str) -> None:
    loud = tmp_path / "loud.py"
    loud.write_text(LOUD)
    done = shell(f"auditor {line.replace('RUN', run)} --plugin '{loud}' --format json")
    json.loads(done.stdout)
    for word in (b"library loaded", b"child", b"shell", b"imported", b"library unloaded"):
        assert word in done.stderr


def test_a_form_on_standard_output_is_alone_too(run: str, tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(LOUD)
    loud = f"auditor report render '{run}' --format json --stdout --plugin '{tmp_path / 'loud.py'}'"
    assert shell(loud).stdout == Path(run, "report.json").read_bytes()


def test_forced_colours_in_a_log_move_no_cursor() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WATCHED],
        capture_output=True,
        check=True,
        env=os.environ | {"FORCE_COLOR": "1"},
    )
    lines = done.stderr.decode().splitlines()
    assert [line.split("s  ")[1].split("\x1b")[0] for line in lines] == [
        "admitting checkpoints",
        "failed: erased: it broke",
        "stopped: enough",
        "erasing: training 1/2",
        "erasing: training 2/2",
    ]
    assert "\x1b[31m" in lines[1] and "\x1b[33m" in lines[2]
    assert all(
        code.split("m")[0].replace(";", "").isdigit() for code in done.stderr.decode().split("\x1b[")[1:]
    )


def test_help_and_version_are_on_standard_output(forks: Forks) -> None:
    for line in ("--version", "--help", "audit --help", "plugins show --help", "policy check -h"):
        done = forks.call(*line.split())
        assert (done.returncode, done.stderr) == (0, "") and len(done.stdout) > 10


@pytest.mark.parametrize(("more", "moves"), [({}, True), ({"CI": "true"}, False), ({"TERM": "dumb"}, False)])
def test_bars_are_for_a_terminal_that_a_person_looks_at(more: dict[str, str], moves: bool) -> None:
    said = in_a_terminal([sys.executable, "-c", WATCHED], "stderr", **more)
    assert (b"\x1b[?25l" in said) == moves and b"admitting checkpoints" in said


def test_where_there_is_no_posix_it_says_so_in_one_sentence() -> None:
    script = "import sys; sys.modules['fcntl'] = None; from auditor._cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "Linux and macOS" in done.stderr and "WSL" in done.stderr
