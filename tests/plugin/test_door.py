"""The door and its watchdog: what a plugin sees of the process, and what is left of it afterwards."""

from __future__ import annotations

import locale
import os
import random
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from auditor._process.watchdog import WATCHDOG, Watchdog
from auditor.errors import PluginError, RefusedError, UsageError
from auditor.plugin import _door as door
from auditor.plugin._loader import make_plugin

PROBE = make_plugin("probes", "in-domain", {})


def meddle() -> list[float]:
    """Draw from every global generator and leave everything different."""
    drawn = [random.random(), float(np.random.rand()), float(torch.rand(()))]
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("medium")
    torch.set_default_device("meta")
    torch.device("meta").__enter__()
    torch.inference_mode().__enter__()
    torch.set_autocast_enabled("cpu", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.enable_math_sdp(False)
    np.seterr(all="raise")
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    Image.MAX_IMAGE_PIXELS = None
    warnings.simplefilter("ignore")
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    socket.setdefaulttimeout(0.001)
    sys.setrecursionlimit(1234)
    os.environ["AUDITOR_CACHE"] = "elsewhere"
    os.environ.pop("PATH")
    os.umask(0o777)
    os.chdir("/")
    print("hello")
    return drawn


def state() -> tuple[object, ...]:
    modes = (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        Path.cwd(),
        torch.ones(()).device,
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.are_deterministic_algorithms_enabled(),
        sys.float_info.min / 2 > 0,
        (torch.backends.cudnn.benchmark, torch.backends.cuda.math_sdp_enabled()),
        np.geterr(),
        (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS),
        list(warnings.filters),
        locale.setlocale(locale.LC_ALL),
        signal.getsignal(signal.SIGTERM),
        (socket.getdefaulttimeout(), sys.getrecursionlimit()),
        dict(os.environ),
        os.umask(0o022),
    )
    os.umask(modes[-1])
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist(), modes


def test_a_call_leaves_the_process_as_it_was_and_is_reproducible(capsys: pytest.CaptureFixture[str]) -> None:
    before = state()
    first, second = door.call(PROBE, meddle), door.call(PROBE, meddle)
    assert state() == before
    assert first == second, "the generators begin from the same seed in every call"
    assert capsys.readouterr().out == ""


def test_who_imports_torch_first_does_not_decide_how_it_computes() -> None:
    code = """
import sys
from auditor.plugin import _door as door
assert "torch" not in sys.modules and "numpy" not in sys.modules
with door.opened("A module that research left behind"):
    import numpy, torch
    from PIL import ImageFile
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    numpy.seterr(all="raise")
    threads = torch.get_num_threads()
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_num_threads(threads + 1)
    torch.manual_seed(7)
assert torch.is_grad_enabled() and torch.get_num_threads() == threads
assert (torch.ones(()).dtype, torch.ones(()).device.type) == (torch.float32, "cpu")
assert numpy.geterr()["under"] == "ignore" and not ImageFile.LOAD_TRUNCATED_IMAGES
assert torch.initial_seed() != 7
assert type(torch.__spec__.loader).__module__ == "_frozen_importlib_external"
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr


def test_a_generator_keeps_its_randomness_from_step_to_step_and_not_ours() -> None:
    def steps() -> Iterator[float]:
        for _ in range(3):
            yield random.random()

    alone = list(steps_of(7))
    interrupted = []
    for value in door.iterate(PROBE, steps(), 7):
        random.seed(99)  # what happens outside is none of its business
        interrupted.append(value)
    assert interrupted == alone and len(set(alone)) == 3
    assert list(door.iterate(PROBE, steps(), 8)) != alone


def steps_of(seed: int) -> Iterator[float]:
    generator = random.Random(seed)
    return (generator.random() for _ in range(3))


def test_a_plugins_refusal_is_its_own_error_and_not_the_checkpoints() -> None:
    def refuse() -> None:
        raise RefusedError("a LoRA is malformed")

    def misuse() -> None:
        raise UsageError("give another file")

    with pytest.raises(PluginError, match=r"'in-domain' .*: a LoRA is malformed"):
        door.call(PROBE, refuse)
    with pytest.raises(UsageError, match="give another file"):
        door.call(PROBE, misuse)


def test_without_patience_nothing_is_watched() -> None:
    with WATCHDOG.waiting(None, lambda sentence: None):
        assert door.call(PROBE, lambda: 1) == 1


def test_signs_of_life_keep_it_waiting() -> None:
    """Three times the patience, with signs of life in between and in a call inside of a call."""
    dog, heard = Watchdog(), list[str]()
    with dog.waiting(0.4, heard.append), dog.watch("outer"):
        for _ in range(4):
            time.sleep(0.1)
            dog.alive()
        for _ in range(4):
            with dog.watch("inner"):
                time.sleep(0.2)
    assert heard == []


@pytest.mark.parametrize("stderr", ["open", "closed"])
def test_the_process_ends_with_5_even_where_nobody_reads_its_error(stderr: str) -> None:
    code = (
        "import os, time\nfrom auditor._process.watchdog import WATCHDOG\n"
        + ("os.close(2)\n" if stderr == "closed" else "")
        + "with WATCHDOG.waiting(0.3, lambda sentence: 1 / 0), WATCHDOG.watch('Somebody'):\n    "
        "time.sleep(60)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert ended.returncode == 5
    assert ("Somebody gave no sign of life for 0.3 seconds" in ended.stderr) == (stderr == "open")
