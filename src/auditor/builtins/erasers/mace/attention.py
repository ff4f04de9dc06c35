"""Cross-attention made visible: recorded while an image is drawn, and while LoRAs are trained against it
(Lu et al. 2024, Eq. 3)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn import functional

from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.sampling import draw
from auditor.policy import Sampler


@dataclass(frozen=True)
class StackedLora:
    """One projection's LoRAs of C concepts: ``down`` (C, r, width) and ``up`` (C, out, r)."""

    down: Tensor
    up: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        """up @ down @ ``states`` for a batch (C * n, tokens, width) in which each concept's n samples lie
        together."""
        tokens = states.shape[1]
        each = states.reshape(len(self.down), -1, states.shape[-1])
        return (each @ self.down.mT @ self.up.mT).reshape(len(states), tokens, -1)


class RecordedCrossAttention:
    """An attention processor that computes probabilities explicitly and appends each layer's to ``maps``."""

    def __init__(
        self, maps: list[Tensor], key: StackedLora | None = None, value: StackedLora | None = None
    ) -> None:
        self.maps, self.key, self.value = maps, key, value

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Attention as diffusers' default processor, for cross-attention without masks; stores (batch,
        heads, pixels, tokens)."""
        assert encoder_hidden_states is not None
        projected = [
            attn.to_q(hidden_states),
            attn.to_k(encoder_hidden_states),
            attn.to_v(encoder_hidden_states),
        ]
        for at, lora in ((1, self.key), (2, self.value)):
            if lora is not None:
                projected[at] = projected[at] + lora(encoder_hidden_states)
        query, key, value = (each.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for each in projected)
        shares = (query @ key.transpose(-1, -2) * attn.scale).float().softmax(dim=-1)
        self.maps.append(shares)
        mixed = (shares.to(value.dtype) @ value).transpose(1, 2).flatten(-2)
        out: Tensor = attn.to_out[1](attn.to_out[0](mixed))
        return out


@contextmanager
def recorded_attention(
    unet: UNet2DConditionModel, loras: Mapping[str, StackedLora] | None = None
) -> Iterator[list[Tensor]]:
    """While open, every forward pass appends its cross-attention maps, layer by layer, to the list that is
    yielded.

    ``loras``, by projection ("….attn2.to_k"), take part without being installed in the model.
    """
    maps: list[Tensor] = []
    loras = loras or {}
    before = unet.attn_processors

    def processor(name: str) -> RecordedCrossAttention:
        layer = name.removesuffix(".processor")
        return RecordedCrossAttention(maps, loras.get(f"{layer}.to_k"), loras.get(f"{layer}.to_v"))

    unet.set_attn_processor(
        {name: processor(name) if ".attn2." in name else old for name, old in before.items()}
    )
    try:
        yield maps
    finally:
        unet.set_attn_processor(before)


def draw_with_attention(
    model: DiffusionModel, prompts: Sequence[str], marked: Tensor, seeds: Sequence[int], sampler: Sampler
) -> tuple[Tensor, Tensor]:
    """Draw one image for each (prompt, seed): its scaled latents (N, C, h, w), and the attention (N, h, w)
    that ``marked`` tokens drew.

    ``marked`` (N, tokens) is 1 at those tokens. Each layer's map is averaged over heads and scaled to h x w;
    the maps of all layers and steps are summed.
    """
    count = len(seeds)
    _, height, width = model.latent_shape(sampler.size)
    total = torch.zeros(count, height, width, device=model.device)
    with recorded_attention(model.denoiser) as maps:

        def gather(timestep: int, latents: Tensor) -> None:
            for shares in maps:
                given = (shares[count:] * marked[:, None, None, :]).sum(-1).mean(1)
                side = math.isqrt(given.shape[1] * height // width)
                grid = given.view(count, 1, side, -1)
                total.add_(functional.interpolate(grid, size=(height, width), mode="bilinear")[:, 0])
            maps.clear()

        latents, _ = draw(model, prompts, seeds, sampler, on_step=gather, decode=False)
    return latents, total


def attention_losses(
    maps: Sequence[Tensor], masks: Tensor, marked: Tensor, *, squared: bool = True
) -> Tensor:
    """Of each sample, the attention of ``marked`` tokens (batch, tokens) inside its mask (batch, H, W),
    summed over layers.

    In each layer the square of the Frobenius norm (Eq. 3), or the norm itself. Masks go to each layer's size
    by area and count where above one half; a mask that vanishes there counts where it is largest. Where
    nothing is masked there is neither loss nor gradient.
    """
    losses = maps[0].new_zeros(len(masks))
    for shares in maps:
        pixels = shares.shape[2]
        side = math.isqrt(pixels * masks.shape[1] // masks.shape[2])
        area = functional.adaptive_avg_pool2d(masks[:, None], (side, pixels // side)).flatten(1)
        inside = (area >= area.amax(1, keepdim=True).clamp(max=0.5)) & (area > 0)
        energy = (shares * inside[:, None, :, None] * marked[:, None, None, :]).square().sum((1, 2, 3))
        if not squared:
            energy = torch.where(
                energy > 0, energy.where(energy > 0, torch.ones_like(energy)).sqrt(), torch.zeros_like(energy)
            )
        losses = losses + energy
    return losses
