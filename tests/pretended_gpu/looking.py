"""What is looked at while a case runs: waits between two steps, and the calls of a part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from torch import Tensor, nn

from tests.pretended_gpu.device import PretendedGpu


class Steps:
    """Counts the waits from one step to the next of a loop that tells of each."""

    def __init__(self, gpu: PretendedGpu) -> None:
        self._gpu = gpu
        self._marks: list[int] = []

    def __call__(self, *step: Any) -> None:
        """A step has ended."""
        self._marks.append(self._gpu.waits.total())

    @property
    def each(self) -> int:
        """The most that one step waited; the first, which sets things up, is left out."""
        return max(after - before for before, after in zip(self._marks, self._marks[1:], strict=False))


@dataclass(frozen=True)
class Seen:
    """One call of a part: rows, operations in it, and casts among those."""

    rows: int
    operations: int
    casts: int


@contextmanager
def calls_of(part: type[nn.Module], gpu: PretendedGpu) -> Iterator[list[Seen]]:
    """While open every call of a module of the class ``part`` is noted."""
    forward: Callable[..., Any] = part.forward
    found: list[Seen] = []

    def noted(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        before, casts = gpu.operations.total(), gpu.operations["_to_copy"]
        result = forward(module, *args, **kwargs)
        first = next(each for each in (*args, *kwargs.values()) if isinstance(each, Tensor))
        after = gpu.operations.total() - before
        found.append(Seen(len(first), after, gpu.operations["_to_copy"] - casts))
        return result

    with mock.patch.object(part, "forward", noted):
        yield found
