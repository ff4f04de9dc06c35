"""A flawed image is drawn once more, and memory that runs out costs half a batch, not the images."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from auditor._diffusion.drawing import DrawAtOnce, draw_checked, draw_in_batches


def pictures(seeds: Sequence[int]) -> Tensor:
    """Ramps, a brightness a seed: no flaw is in them."""
    ramp = torch.arange(8, dtype=torch.uint8).mul(20).repeat(3, 8, 1)
    return torch.stack([ramp + seed for seed in seeds])


def drawing(room: int, asked: list[int]) -> DrawAtOnce:
    """A model that has room for so many images at once."""

    def draw(prompts: Sequence[str], seeds: Sequence[int], *, rows: int) -> tuple[Tensor, list[bool]]:
        asked.append(len(seeds))
        assert len(seeds) <= rows
        if len(seeds) > room:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate a lot")
        return pictures(seeds), [True] * len(seeds)

    return draw


def test_a_batch_that_does_not_fit_is_halved_and_stays_halved() -> None:
    asked: list[int] = []
    parts = list(draw_in_batches(drawing(3, asked), ["x"] * 10, range(10), 8))
    assert asked == [8, 4, 2, 2, 2, 2, 2]
    assert [part for part, *_ in parts] == [slice(start, start + 2) for start in range(0, 10, 2)]
    assert torch.equal(torch.cat([images for _, images, _ in parts]), pictures(range(10)))
    assert all(flaws == [None, None] for *_, flaws in parts)


def test_what_does_not_hold_one_image_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="allocate memory"):
        list(draw_in_batches(drawing(0, []), ["x"] * 4, range(4), 4))


def test_other_errors_are_not_tried_again() -> None:
    asked: list[int] = []

    def draw(prompts: Sequence[str], seeds: Sequence[int], *, rows: int) -> tuple[Tensor, list[bool]]:
        asked.append(len(seeds))
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        list(draw_in_batches(draw, ["x"] * 4, range(4), 4))
    assert asked == [4]


def test_a_flawed_image_is_drawn_once_more_with_its_own_seed() -> None:
    asked: list[list[int]] = []

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, list[bool]]:
        first = not asked
        asked.append(list(seeds))
        images = pictures(seeds)
        if first:
            images[1] = 7
        images[[seed == 3 for seed in seeds]] = 9
        return images, [True] * len(seeds)

    images, flaws = draw_checked(draw, ["a", "b", "c", "d"], [0, 1, 2, 3])
    assert asked == [[0, 1, 2, 3], [1, 3]]
    assert flaws == [None, None, None, "blank"]
    assert torch.equal(images[:3], pictures([0, 1, 2]))
