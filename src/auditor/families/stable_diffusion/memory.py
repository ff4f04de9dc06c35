"""What activations take beside weights, from a checkpoint's configurations: before anything is loaded.

Counted once as shapes at Stable Diffusion 1.4's size, 512 px (``tests/pretended_gpu``): an image of 64 x 64
latent pixels takes so many bytes, and what takes them grows with pixels and with the width of the first
block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from auditor.families.family import Activations

_LATENT_PIXELS, _UNET_WIDTH, _VAE_WIDTH = 64 * 64, 320, 128
_DRAWN, _DECODED, _ENCODED = 138e6, 805e6, 680e6
_LORA, _FULL = 1570e6, 950e6


def activations(configs: Mapping[str, Mapping[str, Any]], side: int) -> Activations:
    """Of images with ``side`` x ``side`` latent pixels. ``configs``: the content of each part's
    config.json."""
    pixels = side * side / _LATENT_PIXELS
    denoiser = pixels * configs["unet"]["block_out_channels"][0] / _UNET_WIDTH
    autoencoder = pixels * configs["vae"]["block_out_channels"][0] / _VAE_WIDTH
    return Activations(
        latent_pixels=side * side,
        drawn=round(denoiser * _DRAWN),
        decoded=round(autoencoder * _DECODED),
        encoded=round(autoencoder * _ENCODED),
        lora=round(denoiser * _LORA),
        full=round(denoiser * _FULL),
    )
