"""``python -m tests.gpu [FILE] [--pretended | --cpu] [--small] [--steps 0,1]``: the first minutes on a GPU.

Each step runs in a process of its own with its own limit; rows are written to FILE (gpu.jsonl) at once.
Nothing is fetched: neither packages nor weights. ``--small`` with ``--pretended`` or ``--cpu`` tries the
script, with ten times the limits.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tests.gpu.running import run_steps, way_to_start
from tests.gpu.setting import Setting
from tests.gpu.steps import STEPS

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
        return run_steps(replace(setting, starts=way_to_start(setting)), options.steps)
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


if __name__ == "__main__":
    sys.exit(main())
