"""The command line in forks of one process that has imported everything: an audit can be started, and
killed, without paying for imports."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from auditor._files import bundled


@dataclass
class Fork:
    """One command that runs in a fork."""

    pid: int
    output: Path
    """What it writes to stdout, and to stderr where that has no file of its own."""
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


EVERYTHING = (
    *("auditor._audit.run.runner", "auditor._checkpoint.load", "auditor._cli.audit", "auditor._cli.judge"),
    *(
        "auditor._cli.erase",
        "auditor._diffusion.finetune",
        "auditor.builtins.clip.model",
        "auditor._study.run",
    ),
    *("auditor.builtins.reporters.html", "auditor._erase.erase"),
)
"""Of an audit's process."""
LIBRARIES = (
    *("torch", "torchvision", "scipy.stats", "accelerate", "peft", "transformers.models.clip.modeling_clip"),
    *("diffusers.models.unets.unet_2d_condition", "diffusers.models.autoencoders.autoencoder_kl"),
)
"""Of an audit's process, and nothing of ours."""
FRESH_CLIENT = """
import sys
for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
    del sys.modules[name]
"""
"""A prelude: the Hub's client reads its environment when it is imported, so it is imported anew."""


class Forks:
    """A process that has imported ``modules`` and forks for every command; one command at a time."""

    def __init__(self, folder: Path, modules: Sequence[str] = EVERYTHING) -> None:
        self._folder, self._count = folder, 0
        self._last: Fork | None = None
        quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self._server = subprocess.Popen(
            [sys.executable, __file__, *modules],
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

    def start(
        self,
        *arguments: str,
        prelude: str = "",
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        apart: bool = False,
    ) -> Fork:
        """Run ``auditor`` with ``arguments``; ``prelude`` is Python that the fork runs first.

        ``environment`` takes the place of the server's; the command runs in ``folder``; stderr has a file
        of its own where it is to be told ``apart``.
        """
        self._count += 1
        output = self._folder / f"{self._count}.txt"
        output.touch()
        request = {
            "arguments": arguments,
            "prelude": prelude,
            "world": str(bundled._MICRO_WORLD),
            "environment": None if environment is None else dict(environment),
            "folder": str(folder or Path.cwd()),
            "output": str(output),
            "errors": str(output.with_suffix(".err")) if apart else None,
        }
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        self._last = Fork(self._read()["pid"], output, self._server.stdout)
        return self._last

    def command(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        prelude: str = "",
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """``auditor`` with ``arguments``, as :func:`subprocess.run` gives it."""
        words = [str(argument) for argument in arguments]
        fork = self.start(*words, prelude=prelude, environment=env, folder=cwd, apart=True)
        if fork.wait(timeout) is None:
            fork.send(signal.SIGKILL)
            fork.wait()
            raise subprocess.TimeoutExpired(words, timeout)
        assert fork.code is not None
        errors = fork.output.with_suffix(".err").read_text()
        return subprocess.CompletedProcess(words, fork.code, fork.said, errors)

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
    for module in sys.argv[1:]:
        importlib.import_module(module)
    if "auditor._cli.audit" in sys.modules:
        from auditor.plugin._loader import load_plugins

        load_plugins()
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
        for stream, file in ((1, request["output"]), (2, request["errors"])):
            os.dup2(1 if file is None else os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(request["folder"])
        if request["environment"] is not None:
            os.environ.clear()
            os.environ.update(request["environment"])
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
