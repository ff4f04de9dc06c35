"""``python -m tests.gpu [FILE] [--pretended | --cpu] [--small] [--steps 0,1]``: the first minutes on a GPU.

Each step runs in a process of its own with its own limit; rows are written to FILE (gpu.jsonl) at once.
Nothing is fetched: neither packages nor weights. ``--small`` with ``--pretended`` or ``--cpu`` tries the
script, with ten times the limits.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path

from tests.gpu.setting import Setting
from tests.gpu.steps import STEPS, WHOLE, Step

ROOT = Path(__file__).parents[2]
_LIBRARIES = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "open_clip",
    "auditor",
    "auditor._audit.run.runner",
)


def main() -> int:
    """Run the steps; 0 where each ended by itself."""
    options = _options()
    if options.kind == "pretended" and "LD_PRELOAD" not in os.environ:
        from tests.pretended_gpu.driver import environment, missing

        if reason := missing():
            raise SystemExit(reason)
        os.execve(sys.executable, [sys.executable, "-m", "tests.gpu", *sys.argv[1:]], environment())
    options.file.unlink(missing_ok=True)
    work = Path(tempfile.mkdtemp(prefix="auditor-gpu-"))
    setting = Setting(options.kind, options.small, options.file, work)
    makers = [] if options.small or 7 not in options.steps else _begin_checkpoints(work)
    try:
        _import(setting)
        return _run(replace(setting, starts=_way_to_start()), options.steps)
    finally:
        for maker in makers:
            maker.kill()
            maker.wait()
        shutil.rmtree(work, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=Path("gpu.jsonl"))
    kind = parser.add_mutually_exclusive_group()
    for name, text in (("pretended", "on a pretended GPU"), ("cpu", "on the CPU")):
        kind.add_argument(f"--{name}", dest="kind", action="store_const", const=name, help=text)
    parser.add_argument(
        "--small", action="store_true", help="a small model in place of Stable Diffusion's shape"
    )
    every = range(len(STEPS))
    parser.add_argument(
        "--steps",
        type=lambda text: [int(each) for each in text.split(",")],
        default=list(every),
        help="numbers, separated by commas",
    )
    parser.set_defaults(kind="gpu")
    options = parser.parse_args()
    if not set(options.steps) <= set(every):
        parser.error(f"steps are 0 to {len(STEPS) - 1}")
    if options.kind == "pretended" and not options.small:
        parser.error("--pretended computes on the CPU: add --small")
    return options


def _begin_checkpoints(work: Path) -> list[subprocess.Popen[bytes]]:
    """Step 7 reads two checkpoints; they are written while the steps before it run."""
    from tests.gpu.steps.loop import checkpoints

    line = ["nice", "-n", "10", sys.executable, "-m", "tests.science.true_size"]
    return [subprocess.Popen([*line, *each], cwd=ROOT) for each in checkpoints(work)]


def _import(setting: Setting) -> None:
    """What every step needs, once: each is a fork of this process, in which torch computes nothing."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # "is there a GPU?" must not begin to use it here
    for name in _LIBRARIES:
        importlib.import_module(name)
    setting.write("seconds to import", time.monotonic() - setting.began)


def _way_to_start() -> str:
    """``fork``, so that a step need not import anew; ``spawn`` where a library has begun to use the GPU
    already, which forks cannot go on with."""
    import torch

    child = os.fork()
    if child == 0:
        os._exit(int(torch.cuda._is_in_bad_fork()))
    _, status = os.waitpid(child, 0)
    return "spawn" if status else "fork"


def _run(setting: Setting, steps: list[int]) -> int:
    broken = 0
    for number in steps:
        step, own = STEPS[number], replace(setting, step=number)
        patience = 1 if setting.kind == "gpu" else 10
        left = patience * WHOLE - (time.monotonic() - setting.began)
        limit = min(patience * step.limit, left)
        if limit < 5:
            own.write(step.asks, f"left out: {WHOLE} s are over")
            broken += 1
            continue
        how, took = _one(own, step, limit)
        own.write(
            f"{step.asks} ({step.limit} s at most)", how or f"done in {took:.0f} s", "done", how is None
        )
        broken += how is not None
        if number == 0 and how is not None and setting.kind == "gpu":
            break  # without a GPU, or on another machine than was described, nothing else would tell anything
    print(f"Rows are in {setting.file}; docs/gpu.md says what each one means that is not as expected (!).")
    return int(broken > 0)


def _one(setting: Setting, step: Step, limit: float) -> tuple[str | None, float]:
    """Run a step in a process of its own. A sentence where it did not end well, and its seconds."""
    began = time.monotonic()
    process = multiprocessing.get_context(setting.starts).Process(target=_child, args=(setting, step))
    process.start()
    process.join(limit)
    if process.is_alive():
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        return f"Step {setting.step} was ended at its limit of {limit:.0f} s.", time.monotonic() - began
    took = time.monotonic() - began
    if process.exitcode:
        return f"Step {setting.step} broke; its error stands in the row before.", took
    return None, took


def _child(setting: Setting, step: Step) -> None:
    os.setsid()  # so that what it starts ends with it
    try:
        with setting.opened():
            importlib.import_module(f"tests.gpu.steps.{step.module}").run(setting)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, it is what the step found
        setting.write("error", f"{type(error).__name__}: {error}", "none", False)
        setting.write("traceback", traceback.format_exc().splitlines()[-12:])
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
