"""A card with little memory: a layer of a real model that does not hold more than so many rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Narrow(nn.Conv2d):
    """A convolution on a card that holds so many rows of it."""

    room = 0
    asked: list[int]

    def forward(self, pixels: Tensor) -> Tensor:
        self.asked.append(len(pixels))
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(pixels)


def narrow(convolution: nn.Conv2d, room: int) -> Narrow:
    """``convolution`` itself, which from now on has room for so many rows."""
    convolution.__class__ = Narrow
    assert isinstance(convolution, Narrow)
    convolution.room, convolution.asked = room, []
    return convolution
