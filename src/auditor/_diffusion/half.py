"""A denoiser that draws on a GPU with weights in half precision: autocast would cast all of them at every
call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def half_weights(denoiser: nn.Module, precision: torch.dtype) -> Iterator[None]:
    """While open, ``denoiser`` holds copies of its weights in ``precision``, convolutions in the layout that
    tensor cores read (``channels_last``). Afterwards it holds its own again, the same tensors.

    The copies are made anew each time, a few milliseconds, so that nothing old is ever drawn from.
    """
    own = [
        (module, name, value)
        for module in denoiser.modules()
        for name, value in module._parameters.items()
        if value is not None and value.is_floating_point()
    ]
    copies = dict[int, nn.Parameter]()
    try:
        for module, name, value in own:
            if id(value) not in copies:
                copies[id(value)] = nn.Parameter(_copied(value, precision), requires_grad=False)
            module._parameters[name] = copies[id(value)]
        yield
    finally:
        for module, name, value in own:
            module._parameters[name] = value


def _copied(value: Tensor, precision: torch.dtype) -> Tensor:
    layout = torch.channels_last if value.dim() == 4 else torch.contiguous_format
    return value.detach().to(precision, memory_format=layout)
