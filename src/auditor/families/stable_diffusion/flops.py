"""What one pass of the denoiser costs: counted from its configuration and the header of its weights,
before anything is loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_BLOCKS = {"CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}
_RESAMPLER = re.compile(r"(down|up)_blocks\.(\d+)\.(?:down|up)samplers\.0\.conv\.weight")


def denoiser_flops(
    config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], side: int, tokens: int
) -> int:
    """Floating-point operations, two per multiply-accumulate, of one forward pass of a UNet2DConditionModel
    without guidance.

    ``config`` is the content of its config.json and ``shapes`` its tensors by name. The pass denoises one
    latent of ``side`` x ``side`` with a text of ``tokens`` tokens. Convolutions, linear layers and the two
    products of each attention count; norms, activations, biases and sums do not. Raises :class:`ValueError`
    where the UNet is not built as those of SD 1.x and 2.x.
    """
    _check(config)
    resampled: dict[str, list[int]] = {"down": [], "up": []}
    for name in shapes:
        if match := _RESAMPLER.fullmatch(name):
            resampled[match[1]].append(int(match[2]))
    total = 0
    for name, shape in shapes.items():
        if name.endswith(".weight") and len(shape) in (2, 4):
            pixels = _side(name, side, resampled["down"], resampled["up"]) ** 2
            total += _flops(name.split("."), shape, pixels, tokens)
    return total


def _check(config: Mapping[str, Any]) -> None:
    other = {*config.get("down_block_types", ()), *config.get("up_block_types", ())} - _BLOCKS
    if other:
        raise ValueError(f"the cost of {', '.join(sorted(other))} is not known")
    for key in ("only_cross_attention", "mid_block_only_cross_attention", "dual_cross_attention"):
        value = config.get(key)
        if any(value) if isinstance(value, list | tuple) else value:
            raise ValueError(f"the cost of {key} is not known")


def _side(name: str, side: int, down: list[int], up: list[int]) -> int:
    """The side of what the layer of a tensor puts out, from the blocks that halve (``down``) and double
    (``up``) the side."""
    halvings = 0
    if name.startswith("down_blocks."):
        block = int(name.split(".")[1])
        halvings = sum(index < block for index in down) + (".downsamplers." in name)
    elif name.startswith("mid_block."):
        halvings = len(down)
    elif name.startswith("up_blocks."):
        block = int(name.split(".")[1])
        halvings = len(down) - sum(index < block for index in up) - (".upsamplers." in name)
    return -(-side >> halvings)  # each halving rounds up


def _flops(path: list[str], shape: tuple[int, ...], pixels: int, tokens: int) -> int:
    """Operations of the layer ``path`` with a weight of ``shape``: (out, in) or (out, in, height, width)."""
    once = 2 * math.prod(shape)
    if "attentions" not in path:
        return once * (pixels if len(shape) == 4 else 1)
    keys = tokens if "attn2" in path else pixels
    if path[-2] == "to_q":
        return once * pixels + 2 * 2 * pixels * keys * shape[0]
    return once * (keys if path[-2] in ("to_k", "to_v") else pixels)
