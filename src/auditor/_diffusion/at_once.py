"""How much is computed at once: by sizes alone, so that a forecast knows it without a model."""

from __future__ import annotations

_LATENT_PIXELS = 8192  # 2 x 64 x 64: two images at 512 px, 128 at 32 px, on a CPU
_LARGEST_BATCH = 64
_ON_A_GPU = ((40 * 10**9, 16), (20 * 10**9, 8), (0, 4))
"""(bytes of memory from which on, images of 64 x 64 latent pixels that are drawn at once)."""
_PIXELS_ENCODED = 4 * 512 * 512  # four images of 512 px take 2.5 GiB of activations in float32
_DECODED = 4 * 64 * 64  # latent pixels that a GPU decodes at once: 3 GiB of activations in float32


def drawn_at_once(latent_pixels: int, memory: int | None) -> int:
    """Images with so many latent pixels each that are drawn at once; ``memory``: bytes of the GPU's, None on
    a CPU. A GPU's number follows from its memory, so that all of one kind draw alike."""
    pixels = _LATENT_PIXELS
    if memory is not None:
        pixels = 64 * 64 * next(images for least, images in _ON_A_GPU if memory >= least)
    return max(1, min(_LARGEST_BATCH, pixels // latent_pixels))


def encoded_at_once(pixels: int) -> int:
    """Images of so many pixels each that go through the autoencoder at once."""
    return max(1, min(_LARGEST_BATCH, _PIXELS_ENCODED // max(1, pixels)))


def decoded_at_once(latent_pixels: int) -> int:
    """Images with so many latent pixels each that a GPU decodes at once."""
    return max(1, _DECODED // latent_pixels)
