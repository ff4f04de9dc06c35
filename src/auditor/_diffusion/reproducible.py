"""Training that gives the same weights each time, as far as a GPU's libraries can."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """While open, what is computed on a GPU takes algorithms whose sums always have the same order; what was
    set before is put back. torch warns of an operation that has no such algorithm. Nothing is done elsewhere.

    cuBLAS needs ``CUBLAS_WORKSPACE_CONFIG`` too, which is set when auditor is imported.
    """
    if device.type != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn
    filling: Any = torch.utils.deterministic
    before = cudnn.deterministic, cudnn.benchmark, filling.fill_uninitialized_memory
    exact = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        cudnn.deterministic, cudnn.benchmark = True, False
        filling.fill_uninitialized_memory = (
            False  # it costs time, and nothing here reads what it did not write
        )
        torch.use_deterministic_algorithms(True, warn_only=True)
        yield
    finally:
        torch.use_deterministic_algorithms(exact, warn_only=warns)
        cudnn.deterministic, cudnn.benchmark, filling.fill_uninitialized_memory = before
