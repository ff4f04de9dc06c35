"""How far apart two UNets of one architecture lie: relative L2 distance and cosine, block by block, in one
pass over the tensors."""

from __future__ import annotations

import math

import torch
from diffusers import UNet2DConditionModel

_CROSS = (".attn2.to_k.", ".attn2.to_v.")


@torch.no_grad()
def weight_distances(
    base: UNet2DConditionModel, other: UNet2DConditionModel
) -> dict[str, tuple[float, float]]:
    """(relative L2 distance, cosine) of the whole UNet, of cross-attention keys and values, and of each
    block.

    The relative distance is the norm of other - base divided by the norm of base.
    """
    sums: dict[str, list[float]] = {}
    theirs = other.state_dict()
    for name, before in base.state_dict().items():
        one, two = before.double().flatten(), theirs[name].to(before.device).double().flatten()
        change = two - one
        values = [float(a @ b) for a, b in ((change, change), (one, one), (two, two), (one, two))]
        parts = [
            "unet",
            ".".join(name.split(".")[:2])
            if name.split(".")[0] in ("down_blocks", "up_blocks")
            else name.split(".")[0],
        ]
        if any(word in name for word in _CROSS):
            parts.append("attn2 keys and values")
        for part in parts:
            sums[part] = [
                total + value for total, value in zip(sums.get(part, [0.0] * 4), values, strict=True)
            ]
    return {part: _measures(*total) for part, total in sums.items()}


def _measures(change: float, one: float, two: float, product: float) -> tuple[float, float]:
    relative = math.sqrt(change / one) if one else 0.0
    return relative, product / math.sqrt(one * two) if one and two else 1.0
