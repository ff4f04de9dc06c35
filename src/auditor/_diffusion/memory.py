"""Memory that runs out: known for what it is, and met by computing less at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from auditor.errors import said

T = TypeVar("T")

_NO_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "unable to find an engine",  # cuDNN, where none fits into what is left
)
_PERHAPS = "cudnn_status_internal_error"  # no memory where the sentence also speaks of allocating


def is_out_of_memory(error: BaseException) -> bool:
    """Did memory run out, of a GPU or of the machine?

    Python and torch say so in classes of their own, libraries in words. An error that was raised from such a
    one is one too.
    """
    words, cause = said(error).lower(), error.__cause__
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or any(known in words for known in _NO_MEMORY)
        or (_PERHAPS in words and "alloc" in words.replace(_PERHAPS, ""))
        or (cause is not None and is_out_of_memory(cause))
    )


def free_memory() -> None:
    """Give back what torch keeps of a GPU's memory for later."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def in_parts(work: Callable[[slice], T], count: int, size: int) -> list[T]:
    """What ``work`` returns for consecutive slices of ``count`` rows, at most ``size`` rows each.

    Half as many from then on each time that memory runs out; where it does not hold one row, that is raised.
    """
    found, start = list[T](), 0
    while start < count:
        rows = slice(start, min(start + size, count))
        many = rows.stop - rows.start
        try:
            part = work(rows)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or many == 1:
                raise
            size = (many + 1) // 2
        else:
            found.append(part)
            start = rows.stop
            continue
        free_memory()  # outside: the error holds what was computed
    return found
