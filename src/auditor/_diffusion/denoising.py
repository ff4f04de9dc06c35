"""One noised training step: what every probe and eraser that trains, and the held-out loss, are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from auditor._diffusion.memory import free_memory, is_out_of_memory

if TYPE_CHECKING:
    from auditor._diffusion.model import DiffusionModel
    from auditor.families.family import Condition, Noising

_STRIDE = 0x9E3779B97F4A7C15
_LARGEST_SEED = 0x7FFFFFFFFFFFFFFF


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor``, which lies on the CPU, on ``device``; nobody waits until a GPU has it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def training_draw(
    noising: Noising, means: Tensor, deviations: Tensor, batch: int, seed: int, step: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What one training step sees: (rows, latents, noise, times), ``batch`` of each.

    ``means`` and ``deviations`` (N, C, H, W) are those of the training images' latents, on the device of the
    results. Every step draws from its own CPU generator, seeded by (``seed``, ``step``).
    """
    generator = torch.Generator().manual_seed((seed + step * _STRIDE) & _LARGEST_SEED)
    rows = sent(torch.randint(len(means), (batch,), generator=generator), means.device)
    noise, jitter = sent(torch.randn((2, batch, *means.shape[1:]), generator=generator), means.device)
    times = sent(noising.times(batch, generator), means.device)
    return rows, means[rows] + deviations[rows] * jitter, noise, times


def noised_prediction(
    model: DiffusionModel,
    noising: Noising,
    latents: Tensor,
    noise: Tensor,
    times: Tensor,
    condition: Condition,
) -> tuple[Tensor, Tensor]:
    """(what the denoiser predicts, what it is to predict) of ``latents`` with ``noise`` mixed in, both (N, C,
    H, W)."""
    noisy = noising.add(latents, noise, times)
    return model.predict(noisy, times, condition, training=True), noising.target(latents, noise, times)


class Passes:
    """How many rows of a training step go through the denoiser at once: all of its ``batch``, or half as many
    from then on each time that memory runs out.

    ``on_fewer`` is told each time how many they are now.
    """

    def __init__(self, batch: int, on_fewer: Callable[[int], None] = lambda rows: None) -> None:
        self._batch, self._on_fewer = batch, on_fewer
        self.rows = batch
        """Rows that go through the denoiser at once."""

    def backward(self, parameters: Sequence[Tensor], loss: Callable[[slice], Tensor]) -> Tensor:
        """Give ``parameters``, which have no gradients, those of a step's loss, and return the loss.

        ``loss`` computes the mean over a slice of the step's rows; the slices' means are weighted by their
        rows, so that the sum is the mean over all. Where memory runs out the step is begun again with fewer
        rows at once; where it does not hold a single one, that is raised.
        """
        while True:
            try:
                return self._accumulated(loss)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or self.rows == 1:
                    raise
            for parameter in parameters:
                parameter.grad = None
            self.rows = (self.rows + 1) // 2
            free_memory()  # outside: the error holds what was computed
            self._on_fewer(self.rows)

    def _accumulated(self, loss: Callable[[slice], Tensor]) -> Tensor:
        total = []
        for start in range(0, self._batch, self.rows):
            part = slice(start, min(start + self.rows, self._batch))
            own = loss(part)
            if self.rows < self._batch:
                own = own * ((part.stop - part.start) / self._batch)
            own.backward()
            total.append(own.detach())
        return torch.stack(total).sum()
