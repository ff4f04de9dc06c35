"""Noise schedules that families share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor


class DdpmNoising:
    """The discrete schedule of Ho et al. 2020; noise or velocity (Salimans & Ho 2022) is predicted."""

    def __init__(self, schedule: Mapping[str, Any]) -> None:
        self._scheduler = DDPMScheduler.from_config(dict(schedule))
        self._kind = self._scheduler.config.prediction_type
        self.length: int = self._scheduler.config.num_train_timesteps
        """Timesteps of the schedule."""

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """Uniform timesteps."""
        return torch.randint(self.length, (count,), generator=generator)

    def spread(self, shares: Tensor) -> Tensor:
        """The timesteps at ``shares`` of the schedule."""
        return (shares * self.length).long().clamp(max=self.length - 1)

    def add(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """sqrt(alpha_bar) latents + sqrt(1 - alpha_bar) noise."""
        noisy: Tensor = self._scheduler.add_noise(latents, noise, times)
        return noisy

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """The noise, or the velocity."""
        if self._kind == "epsilon":
            return noise
        if self._kind == "v_prediction":
            velocity: Tensor = self._scheduler.get_velocity(latents, noise, times)
            return velocity
        raise ValueError(f"prediction type {self._kind!r} cannot be trained")
