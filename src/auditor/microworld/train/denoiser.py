"""Stage 5: the UNet, epsilon prediction with classifier-free guidance (Ho et al. 2020; Ho & Salimans
2022)."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from auditor.microworld.train.autoencoder import encode
from auditor.microworld.train.clip import tokenize
from auditor.microworld.train.loop import fit
from auditor.microworld.train.renders import Renders

_EMPTY_CAPTIONS = 0.1


def new_denoiser() -> UNet2DConditionModel:
    """An untrained micro UNet: cross-attention in every block, 8 x 8 latents, text states 128 wide."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(64, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=4,  # diffusers reads this as the number of heads
        norm_num_groups=16,
    )


def new_scheduler() -> DDPMScheduler:
    """The noise schedule of Stable Diffusion 1: scaled linear, 1,000 steps, epsilon prediction."""
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )


def train_denoiser(
    renders: Renders,
    autoencoder: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    folder: Path,
    *,
    steps: int,
    seed: int,
    batch: int = 64,
) -> UNet2DConditionModel:
    """Mean squared error on the noise; latents and text states are computed once. Returns the averaged
    weights."""
    captions = ["", *sorted(set(renders.captions))]
    number = {caption: index for index, caption in enumerate(captions)}
    caption_of = torch.tensor([number[caption] for caption in renders.captions])
    with torch.no_grad():
        states = torch.cat(
            [text_encoder(ids).last_hidden_state for ids in tokenize(tokenizer, captions).split(256)]
        )
    means, deviations = encode(autoencoder, renders, torch.arange(len(caption_of)))
    scale = autoencoder.config.scaling_factor
    scheduler = new_scheduler()
    torch.manual_seed(seed)
    denoiser = new_denoiser()
    averaged = copy.deepcopy(denoiser).requires_grad_(False)

    def loss_of(generator: torch.Generator) -> Tensor:
        index = torch.randint(len(caption_of), (batch,), generator=generator)
        dropped = torch.rand(batch, generator=generator) < _EMPTY_CAPTIONS
        texts = states[caption_of[index].masked_fill(dropped, 0)]
        noise, jitter = torch.randn((2, batch, *means.shape[1:]), generator=generator)
        latents = (means[index] + deviations[index] * jitter) * scale
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (batch,), generator=generator)
        predicted = denoiser(
            scheduler.add_noise(latents, noise, timesteps), timesteps, texts, return_dict=False
        )[0]
        return functional.mse_loss(predicted, noise)

    fit(
        "unet",
        denoiser.train(),
        loss_of,
        steps=steps,
        learning_rate=1e-3,
        folder=folder,
        seed=seed,
        ema=averaged,
    )
    return averaged.eval()
