"""The embedded default: a small, real, Stable-Diffusion-shaped model family, trained by this project."""

from __future__ import annotations

from pathlib import Path


def checkpoint_folder() -> Path:
    """The diffusers folder of the micro base (its CLIP, for open_clip, is the subfolder ``clip``)."""
    return Path(__file__).parent / "weights"
