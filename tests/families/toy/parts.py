"""What a toy is made of: a transformer over patches, a table of words, small pixels for latents, rectified
flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

PATCH = 2
TOKENS = 8
ZOOM = 4
_WIDTH = 16


class ToyTransformer(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """Patches and words in one sequence; predicts the velocity of each patch."""

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, _WIDTH, PATCH, PATCH)
        self.time = nn.Linear(1, _WIDTH)
        self.to_q = nn.Linear(_WIDTH, _WIDTH)
        self.to_k = nn.Linear(_WIDTH, _WIDTH)
        self.to_v = nn.Linear(_WIDTH, _WIDTH)
        self.out = nn.Linear(_WIDTH, channels * PATCH**2)

    def forward(self, latents: Tensor, times: Tensor, words: Tensor, pooled: Tensor) -> Tensor:
        grid = self.patches(latents)
        own = grid.flatten(2).transpose(1, 2) + pooled[:, None]
        own = own + self.time(times.float().expand(len(latents))[:, None])[:, None]
        both = torch.cat([own, words], dim=1)
        mixed = nn.functional.scaled_dot_product_attention(self.to_q(own), self.to_k(both), self.to_v(both))
        pixels: Tensor = nn.functional.pixel_shuffle(
            self.out(own + mixed).transpose(1, 2).unflatten(2, grid.shape[2:]), PATCH
        )
        return pixels


class ToyTable(ModelMixin, ConfigMixin):
    """A vector a word."""

    @register_to_config
    def __init__(self, words: int) -> None:
        super().__init__()
        self.table = nn.Embedding(words, _WIDTH)


class ToyPixels(ModelMixin, ConfigMixin):
    """In the place of an autoencoder: smaller and larger images, and a scale."""

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


@dataclass(frozen=True)
class ToyWords:
    """The words that a toy knows, in the order of their ids. The first stands for every other, and fills
    up."""

    words: tuple[str, ...]

    @property
    def record(self) -> list[Any]:
        """The words."""
        return list(self.words)

    def tokenizers(self) -> dict[str, Any]:
        """A tokenizer of whole words."""
        own = Tokenizer(models.WordLevel({word: at for at, word in enumerate(self.words)}, self.words[0]))
        own.normalizer, own.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
        one = PreTrainedTokenizerFast(
            tokenizer_object=own, unk_token=self.words[0], pad_token=self.words[0], model_max_length=TOKENS
        )
        return {"tokenizer": one}


class Flow:
    """Rectified flow: times from 0 to 1, the velocity is predicted."""

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """Uniform."""
        return torch.rand(count, generator=generator)

    def spread(self, shares: Tensor) -> Tensor:
        """The shares themselves."""
        return shares

    def add(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """A straight line from latents to noise."""
        share = times.view(-1, 1, 1, 1)
        return (1 - share) * latents + share * noise

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Its slope."""
        return noise - latents


class Euler:
    """Steps along the velocity, from 1 to 0; with a ``shift`` above 1 shorter ones at first."""

    init_noise_sigma = 1.0

    def __init__(self, shift: float) -> None:
        self._shift = shift

    def set_timesteps(self, steps: int, device: torch.device) -> None:
        """Evenly, then shifted."""
        even = torch.linspace(1, 0, steps + 1, device=device)
        times = self._shift * even / (1 + (self._shift - 1) * even)
        self.timesteps, self._lengths = times[:-1], times[:-1] - times[1:]

    def scale_model_input(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """As they are."""
        return latents

    def step(
        self, predicted: Tensor, timestep: Tensor, latents: Tensor, return_dict: bool = False
    ) -> tuple[Tensor]:
        """One step."""
        length = self._lengths[self.timesteps == timestep]
        return (latents - predicted * length,)
