"""How conditional predictions are turned into the one that a sampler follows: outside of families, which only
predict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from auditor.families.family import Condition

Predict = Callable[[Tensor, Tensor, Condition], Tensor]
"""Latents, times and conditions in; the denoiser's prediction out."""


@dataclass(frozen=True)
class ClassifierFree:
    """Classifier-free guidance (Ho & Salimans 2022): from ``without`` towards ``given``, ``scale`` times as
    far."""

    without: Condition
    given: Condition
    scale: float

    @cached_property
    def _both(self) -> Condition:
        return Condition.joined(self.without, self.given)

    def __call__(self, predict: Predict, latents: Tensor, time: Tensor, *, guided: bool = True) -> Tensor:
        """The guided prediction for ``latents`` (N, C, H, W), both halves in one call of the denoiser; or
        that of ``given`` alone."""
        if not guided:
            return predict(latents, time, self.given)
        without, given = predict(torch.cat([latents, latents]), time, self._both).chunk(2)
        return without + self.scale * (given - without)
