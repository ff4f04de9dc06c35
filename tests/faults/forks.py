"""The command line in forks of one process that has imported everything: an audit can be killed without
paying for imports."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from auditor._files import bundled


@dataclass
class Fork:
    """One command that runs in a fork."""

    pid: int
    output: Path
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
        """What the command wrote to stdout and stderr so far."""
        return self.output.read_text()


class Forks:
    """A process that forks for every command; one command at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._last: Fork | None = None
        quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=os.environ | quiet,
        )
        self._read()

    def _read(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer

    def start(self, *arguments: str, prelude: str = "") -> Fork:
        """Run ``auditor`` with ``arguments``; ``prelude`` is Python that the fork runs first."""
        self._count += 1
        output = self._folder / f"{self._count}.txt"
        output.touch()
        request = {
            "arguments": arguments,
            "prelude": prelude,
            "output": str(output),
            "world": str(bundled._MICRO_WORLD),
        }
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        self._last = Fork(self._read()["pid"], output, self._server.stdout)
        return self._last

    def run(self, *arguments: str, prelude: str = "", seconds: float = 120) -> Fork:
        """Run a command to its end; one that takes longer than ``seconds`` is killed."""
        fork = self.start(*arguments, prelude=prelude)
        if fork.wait(seconds) is None:
            fork.send(signal.SIGKILL)
            fork.wait()
        return fork

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
        output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(output, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
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


if __name__ == "__main__":
    _serve()
