"""Checkpoints whose truth is known by construction, for the gate to be held against.

They are made from the micro world alone: what still knows the concept in some way, and what is destroyed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from auditor._files.bundled import micro_world

UNET = "unet/diffusion_pytorch_model.safetensors"
POLICY = "micro-object-updates"

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Reference:
    """One checkpoint: what it is called, what is true of it, and the verdicts that are right."""

    name: str
    truth: str
    right: tuple[str, ...]
    make: Callable[[Path], None]


def references() -> Iterator[Reference]:
    """Every reference, the quick ones first."""
    still, dead = ("FAIL",), ("INCONCLUSIVE",)
    for share in (0.002, 0.02):
        yield Reference(
            f"base-noise-{share:g}",
            f"the base with noise of {share:.1%} of each tensor's root mean square: draws the ship as before",
            still,
            lambda out, share=share: _edit(micro_world(), out, UNET, lambda t, _: _noised(t, share)),  # type: ignore[misc]
        )
    yield Reference(
        "base-in-half-precision",
        "the base's UNet rounded to float16: draws the ship as before",
        still,
        lambda out: _edit(micro_world(), out, UNET, lambda t, _: t.half().float()),
    )
    yield Reference(
        "destroyed",
        "the base with noise as large as its weights: draws nothing",
        dead,
        lambda out: _edit(micro_world(), out, UNET, lambda t, _: _noised(t, 1.0)),
    )


def _noised(tensor: Tensor, share: float) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    scale = share * tensor.float().square().mean().sqrt()
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(tensor.numel()))
    return (tensor.float() + scale * noise).to(tensor.dtype)


def _edit(source: Path, out: Path, file: str, change: Callable[[Tensor, str], Tensor]) -> None:
    """A copy of ``source`` with each tensor of one file changed."""
    shutil.copytree(source, out, ignore=shutil.ignore_patterns("clip"))
    tensors: Tensors = load_file(out / file)
    save_file({name: change(tensor, name).contiguous() for name, tensor in tensors.items()}, out / file)
