"""The command line in forks of one process that has imported everything: an audit can be killed without
paying for imports."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
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
    _answers: Any
    code: int | None = None
    """Exit code; minus the signal's number where a signal ended it."""

    def wait(self, seconds: float = 120) -> int | None:
        """The exit code, or None where the command still runs after so many seconds."""
        if self.code is None and select.select([self._answers], [], [], seconds)[0]:
            self.code = int(json.loads(self._answers.readline())["code"])
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
    """A process that forks for every command; one command at a time.

    A fork has the environment, the folder and the world of the test. Where what is asked hangs on what Python
    or a library reads as it starts, a process of its own is started instead.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._last: Fork | None = None
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=os.environ | QUIET,
        )
        self._read()

    def _read(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer

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
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        self._last = Fork(self._read()["pid"], stdout, stderr, self._server.stdout)
        return self._last

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        assert self._server.stdin is not None
        if self._last is not None:
            self._last.send(signal.SIGKILL)  # where a test failed before it ended
        self._server.stdin.close()
        self._server.wait(60)
        assert self._server.stdout is not None
        self._server.stdout.close()


def _serve() -> None:
    import auditor._audit.run.runner
    import auditor._checkpoint.load
    import auditor._cli.audit
    import auditor._cli.judge
    from auditor.plugin._loader import load_plugins

    load_plugins()
    import auditor._diffusion.finetune
    import auditor.builtins.clip.model
    import auditor.builtins.reporters.html  # noqa: F401 - imported so that the forks need not

    print(json.dumps({"pid": os.getpid()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _run(request)
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


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
    _serve()
