"""One noised training step: what every probe and eraser that trains, and the held-out loss, are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from auditor._diffusion.model import DiffusionModel
    from auditor.families.family import Condition, Noising

_STRIDE = 0x9E3779B97F4A7C15
_LARGEST_SEED = 0x7FFFFFFFFFFFFFFF


def training_draw(
    noising: Noising, means: Tensor, deviations: Tensor, batch: int, seed: int, step: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What one training step sees: (rows, latents, noise, times), ``batch`` of each.

    ``means`` and ``deviations`` (N, C, H, W) are those of the training images' latents, on the device of the
    results. Every step draws from its own CPU generator, seeded by (``seed``, ``step``).
    """
    generator = torch.Generator().manual_seed((seed + step * _STRIDE) & _LARGEST_SEED)
    rows = torch.randint(len(means), (batch,), generator=generator).to(means.device)
    noise, jitter = torch.randn((2, batch, *means.shape[1:]), generator=generator).to(means.device)
    times = noising.times(batch, generator).to(means.device)
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
