"""Stage 4: the variational autoencoder, 32 x 32 pixels to 8 x 8 latents of four channels (Rombach et al.
2022)."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from auditor.microworld.render import SIZE
from auditor.microworld.train.loop import fit
from auditor.microworld.train.renders import Renders


def new_autoencoder(scaling_factor: float = 1.0) -> AutoencoderKL:
    """An untrained micro autoencoder."""
    return AutoencoderKL(
        sample_size=SIZE,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        mid_block_add_attention=False,
        scaling_factor=scaling_factor,
    )


def train_autoencoder(
    renders: Renders, folder: Path, *, steps: int, seed: int, batch: int = 32
) -> AutoencoderKL:
    """L1 + L2 + 1e-6 KL; the scaling factor makes the latents' standard deviation 1."""
    torch.manual_seed(seed)
    autoencoder = new_autoencoder()

    def loss_of(generator: torch.Generator) -> Tensor:
        pixels = renders.pixels(torch.randint(len(renders.captions), (batch,), generator=generator))
        posterior = autoencoder.encode(pixels).latent_dist
        drawn = autoencoder.decode(posterior.sample(generator)).sample
        loss: Tensor = (
            functional.l1_loss(drawn, pixels)
            + functional.mse_loss(drawn, pixels)
            + 1e-6 * posterior.kl().mean()
        )
        return loss

    fit("vae", autoencoder.train(), loss_of, steps=steps, learning_rate=2e-3, folder=folder, seed=seed)
    autoencoder.eval()
    latents = encode(autoencoder, renders, torch.arange(2048))[0]
    autoencoder.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    return autoencoder


@torch.no_grad()
def encode(autoencoder: AutoencoderKL, renders: Renders, index: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior mean and standard deviation, unscaled, of shape (N, 4, 8, 8)."""
    parts = [autoencoder.encode(renders.pixels(rows)).latent_dist for rows in index.split(256)]
    return torch.cat([part.mean for part in parts]), torch.cat([part.std for part in parts])


@torch.no_grad()
def peak_signal_to_noise(autoencoder: AutoencoderKL, renders: Renders) -> float:
    """Reconstruction PSNR in dB over all ``renders`` (posterior mean, no sampling)."""
    errors = []
    for rows in torch.arange(len(renders.captions)).split(256):
        pixels = renders.pixels(rows)
        drawn = autoencoder.decode(autoencoder.encode(pixels).latent_dist.mean).sample
        errors.append((drawn.clamp(-1, 1) - pixels).square().mean(dim=(1, 2, 3)))
    return float(10 * torch.log10(4 / torch.cat(errors).mean()))
