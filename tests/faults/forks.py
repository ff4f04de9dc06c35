"""The command line in forks of one process that has imported everything: an audit can be killed without
paying for imports."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from auditor._files import bundled

QUIET = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@dataclass
class Fork:
    """One command that runs in a fork."""

    pid: int
    stdout: Path
    stderr: Path
    _answers: socket.socket
    code: int | None = None
    """Exit code; minus the signal's number where a signal ended it."""

    def wait(self, seconds: float = 120) -> int | None:
        """The exit code, or None where the command still runs after so many seconds."""
        if self.code is None and select.select([self._answers], [], [], seconds)[0]:
            self.code = int(_received(self._answers)["code"])
            self._answers.close()
        return self.code

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless the command has ended."""
        if self.wait(0) is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    @property
    def said(self) -> str:
        """What the command wrote so far: stdout, then stderr."""
        return self.stdout.read_text() + self.stderr.read_text()


class Forks:
    """A process that forks for every command of every test.

    A fork has the environment, the folder and the world of the test. Where what is asked hangs on what Python
    or a library reads as it starts, a process of its own is started instead.
    """

    def __init__(self, folder: Path, address: str) -> None:
        self._folder, self._count, self._address = folder, 0, address
        self._started: list[Fork] = []

    def start(
        self, *arguments: str | Path, prelude: str = "", environment: Mapping[str, str] | None = None
    ) -> Fork:
        """Run ``auditor`` with ``arguments``; ``prelude`` is Python that the fork runs first, ``environment``
        the whole one where it is not this process's."""
        self._count += 1
        stdout, stderr = (self._folder / f"{self._count}.{name}" for name in ("out", "err"))
        stdout.touch()
        stderr.touch()
        request = {
            "arguments": [str(argument) for argument in arguments],
            "prelude": prelude,
            "output": [str(stdout), str(stderr)],
            "world": str(bundled._MICRO_WORLD),
            "environment": dict(os.environ | QUIET if environment is None else environment),
            "folder": str(Path.cwd()),
        }
        answers = asked(self._address, request)
        self._started = [fork for fork in self._started if fork.code is None]
        self._started.append(Fork(_received(answers)["pid"], stdout, stderr, answers))
        return self._started[-1]

    def run(
        self,
        *arguments: str | Path,
        prelude: str = "",
        seconds: float = 120,
        environment: Mapping[str, str] | None = None,
    ) -> Fork:
        """Run a command to its end; one that takes longer than ``seconds`` is killed."""
        fork = self.start(*arguments, prelude=prelude, environment=environment)
        if fork.wait(seconds) is None:
            fork.send(signal.SIGKILL)
            fork.wait()
        return fork

    def call(
        self, *arguments: str | Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The same as ``subprocess.run`` gives it."""
        fork = self.run(*arguments, environment=environment)
        assert fork.code is not None
        return subprocess.CompletedProcess(
            arguments, fork.code, fork.stdout.read_text(), fork.stderr.read_text()
        )

    def command(self, folder: Path) -> Path:
        """``folder/auditor``: a program that scripts call, whose work a fork does."""
        path = folder / "auditor"
        world = str(bundled._MICRO_WORLD)
        path.write_text(_COMMAND.format(python=sys.executable, address=self._address, world=world))
        path.chmod(0o755)
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        for fork in self._started:
            fork.send(signal.SIGKILL)  # where a test failed before it ended
            fork._answers.close()


_COMMAND = """#!{python} -IS
import json, os, shutil, socket, sys, tempfile
with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as asked:
    output = [os.path.join(folder, name) for name in ("out", "err")]
    for path in output:
        open(path, "w").close()
    asked.connect({address!r})
    request = dict(arguments=sys.argv[1:], prelude="", output=output, world={world!r},
                   environment=dict(os.environ), folder=os.getcwd())
    asked.sendall(json.dumps(request).encode() + b"\\n")
    *_, ended = asked.makefile()
    for path, stream in zip(output, (sys.stdout, sys.stderr)):
        with open(path, "rb") as said:
            shutil.copyfileobj(said, stream.buffer)
        stream.flush()
sys.exit(json.loads(ended)["code"] % 256)
"""


def asked(address: str, request: dict[str, Any]) -> socket.socket:
    """What a server answers a request on: ``pid``, and at the end ``code``."""
    answers = socket.socket(socket.AF_UNIX)
    answers.connect(address)
    answers.sendall(json.dumps(request).encode() + b"\n")
    return answers


def _received(answers: socket.socket) -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n"):
        part = answers.recv(1)
        assert part, "the server of forks ended"
        line += part
    answer: dict[str, Any] = json.loads(line)
    return answer


def serve_until(ends: int) -> str:
    """Start a server that ends after the process ``ends`` did: its address."""
    server = subprocess.Popen(
        [sys.executable, __file__, str(ends)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | QUIET,
    )
    assert server.stdout is not None
    with server.stdout as answers:
        address = answers.readline().strip()
    assert address, "the server of forks did not start"
    server.returncode = 0  # it outlives this process, and nobody waits for it
    return address


def _serve(ends: int) -> None:
    import auditor._audit.run.runner
    import auditor._checkpoint.load
    import auditor._cli.audit
    import auditor._cli.judge
    from auditor.plugin._loader import load_plugins

    load_plugins()
    import auditor._diffusion.finetune
    import auditor.builtins.clip.model
    import auditor.builtins.reporters.html  # noqa: F401 - imported so that the forks need not

    # the name of a socket is short, and that of a test's folder is not
    with (
        tempfile.TemporaryDirectory(prefix="forks-", dir="/tmp") as folder,
        socket.socket(socket.AF_UNIX) as door,
    ):
        door.bind(f"{folder}/door")
        door.listen(64)
        print(f"{folder}/door", flush=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        while _alive(ends):
            if select.select([door], [], [], 1)[0]:
                connection, _ = door.accept()
                if os.fork() == 0:
                    door.close()
                    _keep(connection)
                connection.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _keep(connection: socket.socket) -> None:
    """In a fork: one command, in a fork of its own that ends with it or with who asked; never returns."""
    try:
        request = _received(connection)
        pid = os.fork()
        if pid == 0:
            connection.close()
            _run(request)
        connection.sendall(json.dumps({"pid": pid}).encode() + b"\n")
        ended, status = 0, 0
        while not ended:
            if select.select([connection], [], [], 0.01)[0]:  # nobody asks twice: who asked is gone
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                break
            ended, status = os.waitpid(pid, os.WNOHANG)
        else:
            connection.sendall(json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode() + b"\n")
    finally:
        os._exit(0)


def _run(request: dict[str, Any]) -> None:
    """In the fork: never returns."""
    code = 70
    try:
        for stream, path in enumerate(request["output"], start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_TRUNC), stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(request["folder"])
        _in(request["environment"])
        bundled._MICRO_WORLD = Path(request["world"])
        sys.argv = ["auditor", *request["arguments"]]
        exec(request["prelude"], {})
        from auditor._cli import main

        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _in(environment: dict[str, str]) -> None:
    """From here on this is the environment, for the Hub's client too, which has read its own."""
    os.environ.clear()
    os.environ.update(environment)
    from huggingface_hub import constants

    importlib.reload(constants)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
