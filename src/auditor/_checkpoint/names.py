"""Shapes of tensors, as they are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without ones at its end: a linear layer and a 1 x 1 convolution hold the same numbers."""
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of a module's tensors by name."""
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}
