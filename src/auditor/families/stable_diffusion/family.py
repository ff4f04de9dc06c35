"""Stable Diffusion 1.x and 2.x (Rombach et al. 2022): a UNet with cross-attention to one text encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from auditor.families.family import Activations, Condition, Family, Parts, SamplingScheduler
from auditor.families.stable_diffusion.files import StableDiffusionFiles
from auditor.families.stable_diffusion.flops import denoiser_flops
from auditor.families.stable_diffusion.memory import activations

if TYPE_CHECKING:  # a checkpoint is admitted without torch
    from torch import Tensor, nn

    from auditor.families.noising import DdpmNoising

_KEYS_AND_VALUES = (".attn2.to_k.", ".attn2.to_v.")


class StableDiffusion(StableDiffusionFiles, Family):
    """Conditions are ``states``: the text encoder's last hidden states, (N, tokens, width)."""

    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")

    def token_ids(self, parts: Parts, prompts: Sequence[str]) -> Tensor:
        """Of the CLIP tokenizer."""
        tokenizer, encoder = parts["tokenizer"], parts["text_encoder"]
        length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        batch = tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        ids: Tensor = batch.input_ids
        return ids

    def condition(self, parts: Parts, prompts: Sequence[str]) -> Condition:
        """The last hidden states, whole."""
        encoder = parts["text_encoder"]
        ids = self.token_ids(parts, prompts).to(encoder.device)
        return Condition({"states": encoder(ids).last_hidden_state})

    def noising(self, schedule: Mapping[str, Any]) -> DdpmNoising:
        """DDPM's."""
        from auditor.families.noising import DdpmNoising

        return DdpmNoising(schedule)

    def sampling_scheduler(self, name: str, schedule: Mapping[str, Any]) -> SamplingScheduler:
        """DDIM (Song et al. 2021) or DPM-Solver++ (Lu et al. 2022)."""
        from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

        kinds: dict[str, tuple[Any, dict[str, Any]]] = {
            "ddim": (DDIMScheduler, {"clip_sample": False}),
            "dpm-solver++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
        }
        kind, settings = kinds[name]
        scheduler: SamplingScheduler = kind.from_config(dict(schedule), **settings)
        return scheduler

    def predict(self, denoiser: nn.Module, latents: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """The UNet on latents, timestep and text states."""
        predicted: Tensor = denoiser(latents, times, condition.rows["states"], return_dict=False)[0]
        return predicted

    def latent_shape(self, parts: Parts, size: int) -> tuple[int, int, int]:
        """The autoencoder halves the side once a block but the first."""
        side = size // 2 ** (len(parts["vae"].config.block_out_channels) - 1)
        return parts["unet"].config.in_channels, side, side

    def smallest(self, parts: Parts) -> tuple[tuple[int, int, int], int]:
        """One latent at the UNet's lowest resolution."""
        config = parts["unet"].config
        side = 2 ** (len(config.block_out_channels) - 1)
        return (config.in_channels, side, side), 8 * side

    def encode(self, parts: Parts, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior's."""
        vae = parts["vae"]
        posterior, scale = vae.encode(pixels.to(vae.dtype)).latent_dist, vae.config.scaling_factor
        return posterior.mean.float() * scale, posterior.std.float() * scale

    def decode(self, parts: Parts, latents: Tensor) -> Tensor:
        """By the autoencoder."""
        vae = parts["vae"]
        pixels: Tensor = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample.float()
        return pixels

    def projections(self, denoiser: nn.Module) -> dict[str, Tensor]:
        """Keys and values of every cross-attention."""
        return {
            name: weight
            for name, weight in denoiser.named_parameters()
            if name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight"))
        }

    def reads_text(self, name: str) -> bool:
        """Cross-attention."""
        return ".attn2." in name

    def groups(self, name: str) -> tuple[str, ...]:
        """The block, and keys and values of cross-attention."""
        first, *rest = name.split(".")
        block = f"{first}.{rest[0]}" if first in ("down_blocks", "up_blocks") else first
        return (
            (block, "attn2 keys and values") if any(word in name for word in _KEYS_AND_VALUES) else (block,)
        )

    def activations(self, configs: Mapping[str, Mapping[str, Any]], size: int) -> Activations:
        """By its size beside that of SD 1.4."""
        return activations(configs, _latent_side(configs, size))

    def flops(
        self, configs: Mapping[str, Mapping[str, Any]], shapes: Mapping[str, tuple[int, ...]], size: int
    ) -> int:
        """Counted layer by layer (:mod:`auditor.families.stable_diffusion.flops`)."""
        side = _latent_side(configs, size)
        return denoiser_flops(
            configs["unet"], shapes, side, configs["text_encoder"]["max_position_embeddings"]
        )


def _latent_side(configs: Mapping[str, Mapping[str, Any]], size: int) -> int:
    """Latent pixels along a side of ``size`` pixels."""
    halvings = len(configs["vae"]["block_out_channels"]) - 1
    return int(size // 2**halvings)


STABLE_DIFFUSION = StableDiffusion()
