"""The machine that a run is on: its device, its software, its threads, and where it keeps what may be used
again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path

import platformdirs

STACK = ("auditor", "torch", "diffusers", "transformers", "peft", "open_clip_torch", "safetensors")
"""The distributions that images and verdicts hang on."""


def versions() -> dict[str, str]:
    """What of :data:`STACK` is installed."""
    return {name: version_of(name) for name in STACK}


def version_of(name: str) -> str:
    """The version of the distribution ``name`` that is installed: the first on the path whose metadata says
    one. ``unknown`` where none does."""
    for distribution in distributions(name=name):
        try:
            release = distribution.version
        except Exception:  # noqa: BLE001, S112 - an empty folder, or whatever else has that name
            continue
        if release:
            return str(release)
    return "unknown"


def threads_now() -> int:
    """How many threads torch computes with."""
    import torch

    return torch.get_num_threads()


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch compute with so many ``threads``, and with as many as before afterwards.

    Sums that are split otherwise differ in their last bits, so a run that goes on elsewhere keeps its number.
    """
    import torch

    before = torch.get_num_threads()
    if threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def default_cache() -> Path | None:
    """Where pictures of bases are kept between audits: ``AUDITOR_CACHE`` or the user's cache folder; None
    where the user has no home."""
    given = os.environ.get("AUDITOR_CACHE")
    try:
        return (
            Path(given).expanduser()
            if given
            else Path(platformdirs.user_cache_dir("auditor")).absolute() / "pictures"
        )
    except (RuntimeError, LookupError, OSError):  # neither HOME nor an account
        return None


def elapsed(began: float) -> str:
    """Seconds since ``began`` (``time.monotonic``) for people: ``73 s`` or ``4 min 10 s``."""
    seconds = round(time.monotonic() - began)
    return f"{seconds} s" if seconds < 100 else f"{seconds // 60} min {seconds % 60} s"
