"""A text-to-image model in memory: the parts of a latent diffusion pipeline and what can be computed once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

_TEXT_BATCH = 64
_NAMES_ALONE = ("architectures", "dtype", "torch_dtype", "transformers_version", "sample_size")


def digest_of_weights(module: nn.Module) -> str:
    """sha256 of every tensor of a module with its name, in sorted order, and of how adapters are laid on
    (peft's configurations)."""
    adapters = {name: config.to_dict() for name, config in getattr(module, "peft_config", {}).items()}
    digest = hashlib.sha256(json.dumps(adapters, sort_keys=True, default=plain).encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def configuration_of(part: Any) -> dict[str, Any]:
    """What a component's configuration says of how it computes: no names, kinds or versions."""
    config = part.config.to_dict() if hasattr(part.config, "to_dict") else dict(part.config)
    return {
        key: value for key, value in config.items() if not key.startswith("_") and key not in _NAMES_ALONE
    }


def plain(value: object) -> object:
    """For JSON: peft's configurations hold sets and enumerations."""
    return sorted(value) if isinstance(value, set) else str(value)


@dataclass(eq=False)
class DiffusionModel:
    """UNet, autoencoder and text encoder (Rombach et al. 2022), all in evaluation mode on one device.

    ``digest`` names the weights as loaded. Weights are float32; the UNet computes in ``precision``
    (autocast). Text states are computed once per prompt and kept: the text encoder is frozen in every probe
    and eraser.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler_config: Mapping[str, Any]
    digest: str
    precision: torch.dtype = torch.float32
    _states: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.unet.device
        return device

    def autocast(self, *, training: bool = False) -> torch.autocast:
        """The UNet's arithmetic. Gradients in half precision would need scaling, so training falls back to
        float32 there."""
        kind = torch.float32 if training and self.precision is torch.float16 else self.precision
        return torch.autocast(self.device.type, dtype=kind, enabled=kind is not torch.float32)

    def latent_shape(self, size: int) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of a ``size`` x ``size`` image."""
        side = size // 2 ** (len(self.vae.config.block_out_channels) - 1)
        return self.unet.config.in_channels, side, side

    @torch.no_grad()
    def text_states(self, prompts: Sequence[str]) -> Tensor:
        """Last hidden states of the text encoder, shape (N, tokens, width), padded to the model's length."""
        new = sorted(set(prompts) - self._states.keys())
        for start in range(0, len(new), _TEXT_BATCH):
            batch = new[start : start + _TEXT_BATCH]
            states = self.text_encoder(self.token_ids(batch)).last_hidden_state
            self._states |= dict(zip(batch, states, strict=True))
        return torch.stack([self._states[prompt] for prompt in prompts])

    def forget_text_states(self) -> None:
        """Compute them anew from here on: for who changes the text encoder."""
        self._states.clear()

    def token_ids(self, prompts: Sequence[str]) -> Tensor:
        """Token ids of shape (N, tokens), padded or cut to the model's length."""
        length = min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)
        batch = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        ids: Tensor = batch.input_ids.to(self.device)
        return ids

    @torch.no_grad()
    def encode(self, images: Tensor, batch: int = 64) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scaled latents of ``images`` (uint8, (N, 3, H, W))."""
        scale = self.vae.config.scaling_factor
        means, deviations = [], []
        for part in images.split(batch):
            pixels = part.to(self.device, self.vae.dtype) / 127.5 - 1
            posterior = self.vae.encode(pixels).latent_dist
            means.append(posterior.mean.float() * scale)
            deviations.append(posterior.std.float() * scale)
        return torch.cat(means), torch.cat(deviations)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Images of scaled ``latents`` (uint8, (N, 3, H, W), CPU), and for each whether all of its pixels
        were finite."""
        pixels = self.vae.decode(latents.to(self.vae.dtype) / self.vae.config.scaling_factor).sample.float()
        finite = pixels.isfinite().flatten(1).all(1).cpu()
        pixels = torch.nan_to_num(pixels, nan=-1.0, posinf=-1.0, neginf=-1.0)
        return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu(), finite
