"""Runs steps, each in a process of its own that is ended at its limit."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import time
import traceback
from dataclasses import replace

from tests.gpu.setting import Setting
from tests.gpu.steps import STEPS, WHOLE, Step


def way_to_start(setting: Setting) -> str:
    """``fork``, so that a step need not import anew; ``spawn`` where a library has begun to use the GPU
    already, which forks cannot go on with."""
    if setting.kind != "gpu":
        return "fork"
    import torch

    child = os.fork()
    if child == 0:
        os._exit(int(torch.cuda._is_in_bad_fork()))
    _, status = os.waitpid(child, 0)
    return "spawn" if status else "fork"


def run_steps(setting: Setting, steps: list[int]) -> int:
    """Run the steps of these numbers, one after the other; 0 where each ended by itself."""
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
        how, took = one_step(own, step, limit)
        own.write(
            f"{step.asks} ({step.limit} s at most)", how or f"done in {took:.0f} s", "done", how is None
        )
        broken += how is not None
        if number == 0 and how is not None and setting.kind == "gpu":
            break  # without a GPU, or on another machine than was described, nothing else would tell anything
    print(f"Rows are in {setting.file}; docs/gpu.md says what each one means that is not as expected (!).")
    return int(broken > 0)


def one_step(setting: Setting, step: Step, limit: float) -> tuple[str | None, float]:
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
