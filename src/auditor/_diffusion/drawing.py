"""Draws images whatever happens: a flawed one once more, half as many at once where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from torch import Tensor

from auditor._diffusion.memory import free_memory, is_out_of_memory
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.sampling import draw
from auditor._files.images import flaw_of
from auditor.policy import Sampler

Draw = Callable[[Sequence[str], Sequence[int]], tuple[Tensor, Sequence[bool]]]
"""Prompts and seeds in; images (uint8, (N, 3, H, W), CPU) out, and for each whether it is finite."""


class DrawAtOnce(Protocol):
    """The same, told how many images a GPU is to draw at once."""

    def __call__(
        self, prompts: Sequence[str], seeds: Sequence[int], *, rows: int
    ) -> tuple[Tensor, Sequence[bool]]:
        """Draw them."""


def draw_function(model: DiffusionModel, sampler: Sampler) -> DrawAtOnce:
    """Draws images of ``model``."""

    def once(prompts: Sequence[str], seeds: Sequence[int], *, rows: int) -> tuple[Tensor, list[bool]]:
        images, finite = draw(model, prompts, seeds, sampler, rows=rows)
        return images, finite.tolist()

    return once


def draw_checked(draw: Draw, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, list[str | None]]:
    """Images, and what is wrong with each (:func:`~auditor._files.images.flaw_of`). One with a flaw is drawn
    once more, with the same seed."""
    images, finite = draw(prompts, seeds)
    flaws = [flaw_of(image, sound) for image, sound in zip(images, finite, strict=True)]
    again = [row for row, flaw in enumerate(flaws) if flaw is not None]
    if again:
        redrawn, finite = draw([prompts[row] for row in again], [seeds[row] for row in again])
        images[again] = redrawn
        for row, image, sound in zip(again, redrawn, finite, strict=True):
            flaws[row] = flaw_of(image, sound)
    return images, flaws


def draw_in_batches(
    draw: DrawAtOnce, prompts: Sequence[str], seeds: Sequence[int], size: int
) -> Iterator[tuple[slice, Tensor, list[str | None]]]:
    """The same, ``size`` images at once, or half as many each time that memory runs out.

    Yields (rows, images, flaws) of each batch. Memory that does not hold a single image is an error.
    """
    start = 0
    while start < len(prompts):
        rows = slice(start, start + size)
        try:
            images, flaws = draw_checked(partial(draw, rows=size), prompts[rows], seeds[rows])
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or size == 1:
                raise
            size = (size + 1) // 2
        else:
            yield rows, images, flaws
            start += len(images)
            continue
        free_memory()  # outside: the error holds what was computed
