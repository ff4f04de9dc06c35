"""Several computations with small denoisers at once, one thread each.

A call of a small denoiser keeps no two threads busy: on two cores two calls of 64 rows, a thread each, take
0.7 of the time of one call of 128 rows with two threads, and a training step of four images is no faster
with two threads than with one. How the work is cut never hangs on the number of cores, and each piece is
computed by one thread, so that its bits do not either.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

from auditor._diffusion.model import DiffusionModel
from auditor._process.machine import torch_threads

T = TypeVar("T")

_SMALL = 50_000_000  # parameters
_LOOK = 0.05  # seconds between two looks at what is computed elsewhere


def is_small(model: DiffusionModel) -> bool:
    """Is ``model`` computed on a CPU, and a call of its denoiser too small for several threads?"""
    return model.device.type == "cpu" and sum(each.numel() for each in model.denoiser.parameters()) < _SMALL


def lanes() -> int:
    """How many pieces are computed at once: as many as torch has threads."""
    return torch.get_num_threads()


def side_by_side(
    pieces: Sequence[Callable[[threading.Event], T]], meanwhile: Callable[[], None] | None = None
) -> list[T]:
    """What each of ``pieces`` returns, computed with one thread each, :func:`lanes` of them at once.

    A piece is given an event: once that is set nobody wants its result, and it should end soon. ``meanwhile``
    is called now and then by the calling thread. What it raises, or a piece, or a signal's handler, ends all.
    """
    stop, many = threading.Event(), min(lanes(), len(pieces))
    with torch_threads(1):  # threads that are started in here begin with it
        if many <= 1 and meanwhile is None:
            return [piece(stop) for piece in pieces]
        with ThreadPoolExecutor(max(1, many), thread_name_prefix="auditor-lane") as pool:
            futures = [pool.submit(piece, stop) for piece in pieces]
            with _ended(stop, futures):
                left = set(futures)
                while left:
                    done, left = wait(left, _LOOK, FIRST_COMPLETED)
                    for future in done:
                        future.result()
                    if meanwhile is not None:
                        meanwhile()
            return [future.result() for future in futures]


@contextmanager
def _ended(stop: threading.Event, futures: Sequence[Future[T]]) -> Iterator[None]:
    """Whatever is raised in here, no piece goes on afterwards."""
    try:
        yield
    except BaseException:
        stop.set()
        for future in futures:
            future.cancel()
        raise
