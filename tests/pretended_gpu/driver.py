"""What a process needs so that autograd runs on a GPU that is not there: two small libraries, built once."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

HERE = Path(__file__).parent
_BUILT = HERE.parents[1] / "build" / "pretended-gpu"


@functools.cache
def missing() -> str | None:
    """Why no GPU can be pretended here; None where one can."""
    if sys.platform != "linux" or not (shutil.which("gcc") and shutil.which("g++")):
        return "A pretended GPU needs Linux, gcc and g++."
    import torch

    return (
        None
        if torch.version.cuda
        else "A pretended GPU needs a torch that was built with CUDA; it needs no GPU."
    )


def environment() -> dict[str, str]:
    """What a process must be started with in which a GPU is pretended."""
    driver = _built("driver.c")
    folder = driver.with_suffix("")
    folder.mkdir(exist_ok=True)
    link = folder / "libcuda.so.1"
    if not link.is_symlink():
        part = link.with_suffix(f".{os.getpid()}")
        part.symlink_to(driver)
        part.rename(link)
    paths = [str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return os.environ | {"LD_PRELOAD": str(driver), "LD_LIBRARY_PATH": ":".join(paths)}


@contextmanager
def autograd_runs(cards: int, inside: Callable[[], Any]) -> Iterator[None]:
    """While open autograd's engine finds a guard for ``cards`` devices. ``inside()`` is a mode for functions
    of torch that is on during a backward pass too: activations that are computed again need it."""
    import torch

    guard = ctypes.CDLL(str(_built("guard.cpp")))
    driver = ctypes.CDLL(str(_built("driver.c")))
    engine = torch.autograd.graph._engine_run_backward

    def run_backward(*args: Any, **kwargs: Any) -> Any:
        driver.pretend_count(cards)
        try:
            with inside():
                return engine(*args, **kwargs)
        finally:
            driver.pretend_count(0)

    guard.install(cards)
    try:
        with (
            mock.patch.object(torch.autograd.graph, "_engine_run_backward", run_backward),
            mock.patch.object(torch.autograd, "_engine_run_backward", run_backward),
        ):
            yield
    finally:
        guard.restore()


def _built(name: str) -> Path:
    """The library made of the source ``name`` beside this file; kept in the checkout's folder ``build``."""
    import torch

    source, root = HERE / name, Path(torch.__file__).parent
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    built = _BUILT / f"{source.stem}-{torch.__version__}-{digest}.so"
    if not built.exists():
        _BUILT.mkdir(parents=True, exist_ok=True)
        part = built.with_suffix(f".{os.getpid()}")
        compiler, more = ("gcc", []) if name.endswith(".c") else ("g++", _torch_options(root))
        line = [compiler, "-O1", "-shared", "-fPIC", str(source), "-o", str(part), *more]
        subprocess.run(line, check=True)
        part.rename(built)
    return built


def _torch_options(root: Path) -> list[str]:
    return ["-std=c++20", f"-I{root / 'include'}", f"-L{root / 'lib'}", "-lc10"]
