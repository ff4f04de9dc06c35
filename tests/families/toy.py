"""A family that shares nothing with Stable Diffusion: a transformer over patches, rectified flow, words by
their hash, images without an autoencoder. It stands in this one file."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from torch import Tensor, nn

from auditor._diffusion.model import DiffusionModel
from auditor.families.family import Condition, Family, Noising, Parts, SamplingScheduler

_WORDS, _TOKENS, _WIDTH, _PATCH = 64, 4, 16, 2


class ToyTransformer(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """Patches and words in one sequence; predicts the velocity of each patch."""

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, _WIDTH, _PATCH, _PATCH)
        self.time = nn.Linear(1, _WIDTH)
        self.to_q = nn.Linear(_WIDTH, _WIDTH)
        self.to_k = nn.Linear(_WIDTH, _WIDTH)
        self.to_v = nn.Linear(_WIDTH, _WIDTH)
        self.out = nn.Linear(_WIDTH, channels * _PATCH**2)

    def forward(self, latents: Tensor, times: Tensor, words: Tensor, pooled: Tensor) -> Tensor:
        grid = self.patches(latents)
        own = grid.flatten(2).transpose(1, 2) + pooled[:, None]
        own = own + self.time(times.float().expand(len(latents))[:, None])[:, None]
        both = torch.cat([own, words], dim=1)
        mixed = nn.functional.scaled_dot_product_attention(self.to_q(own), self.to_k(both), self.to_v(both))
        pixels: Tensor = nn.functional.pixel_shuffle(
            self.out(own + mixed).transpose(1, 2).unflatten(2, grid.shape[2:]), _PATCH
        )
        return pixels


class ToyWords(ModelMixin, ConfigMixin):
    """A vector a word."""

    @register_to_config
    def __init__(self, words: int = _WORDS) -> None:
        super().__init__()
        self.table = nn.Embedding(words, _WIDTH)


class ToyPixels(ModelMixin, ConfigMixin):
    """In the place of an autoencoder: a scale."""

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


class ToyTokenizer:
    """Words by their hash."""

    def __len__(self) -> int:
        return _WORDS


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
    """Steps along the velocity, from 1 to 0."""

    init_noise_sigma = 1.0

    def set_timesteps(self, steps: int, device: torch.device) -> None:
        """Evenly."""
        self.timesteps = torch.linspace(1, 0, steps + 1, device=device)[:-1]

    def scale_model_input(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """As they are."""
        return latents

    def step(
        self, predicted: Tensor, timestep: Tensor, latents: Tensor, return_dict: bool = False
    ) -> tuple[Tensor]:
        """One step."""
        return (latents - predicted / len(self.timesteps),)


class Toy(Family):
    """Conditions are ``words`` (N, tokens, width) and ``pooled`` (N, width)."""

    name = "toy"
    title = "Toy"
    denoiser = "transformer"
    text = ("words",)
    decoder = "pixels"
    lora_targets = ("to_q", "to_k", "to_v")

    def token_ids(self, parts: Parts, prompts: Sequence[str]) -> Tensor:
        rows = [[zlib.crc32(word.encode()) % (_WORDS - 1) + 1 for word in text.split()] for text in prompts]
        return torch.tensor([(row + [0] * _TOKENS)[:_TOKENS] for row in rows])

    def condition(self, parts: Parts, prompts: Sequence[str]) -> Condition:
        words = parts["words"].table(self.token_ids(parts, prompts))
        return Condition({"words": words, "pooled": words.mean(1)})

    def noising(self, schedule: Mapping[str, Any]) -> Noising:
        return Flow()

    def sampling_scheduler(self, name: str, schedule: Mapping[str, Any]) -> SamplingScheduler:
        return Euler()

    def predict(self, denoiser: nn.Module, latents: Tensor, times: Tensor, condition: Condition) -> Tensor:
        predicted: Tensor = denoiser(latents, times, condition.rows["words"], condition.rows["pooled"])
        return predicted

    def latent_shape(self, parts: Parts, size: int) -> tuple[int, int, int]:
        return 3, size, size

    def smallest(self, parts: Parts) -> tuple[tuple[int, int, int], int]:
        return (3, _PATCH, _PATCH), _PATCH

    def encode(self, parts: Parts, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return pixels * parts["pixels"].scale, torch.zeros_like(pixels)

    def decode(self, parts: Parts, latents: Tensor) -> Tensor:
        pixels: Tensor = latents / parts["pixels"].scale
        return pixels

    def projections(self, denoiser: nn.Module) -> dict[str, Tensor]:
        return {}

    def reads_text(self, name: str) -> bool:
        return name.startswith(("to_k", "to_v"))

    def groups(self, name: str) -> tuple[str, ...]:
        return (name.split(".")[0],)

    def flops(
        self, configs: Mapping[str, Mapping[str, Any]], shapes: Mapping[str, tuple[int, ...]], size: int
    ) -> int:
        raise ValueError("what a toy costs is not known")


def toy_model(seed: int = 0) -> DiffusionModel:
    """A model of the family with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = {"transformer": ToyTransformer(), "words": ToyWords(), "pixels": ToyPixels()}
    for part in parts.values():
        part.eval().requires_grad_(False)
    return DiffusionModel({**parts, "tokenizer": ToyTokenizer()}, Toy(), {}, f"toy {seed}")
