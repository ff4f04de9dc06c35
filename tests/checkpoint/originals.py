"""Writes a diffusers model in the names of the original Stable Diffusion files, to read it back as a
single file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}


def original_unet_name(name: str, layers: int, attended: Mapping[int, bool]) -> str:
    """A UNet's tensor name as the original files have it; ``attended``: which up blocks have attention."""
    step = layers + 1
    if match := re.match(r"down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name):
        block, kind, layer, rest = int(match[1]), match[2], int(match[3]), match[4]
        start = f"input_blocks.{1 + block * step + layer}.{int(kind == 'attentions')}"
    elif match := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.*)", name):
        return f"input_blocks.{(int(match[1]) + 1) * step}.0.op.{match[2]}"
    elif match := re.match(r"up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name):
        block, kind, layer, rest = int(match[1]), match[2], int(match[3]), match[4]
        start = f"output_blocks.{block * step + layer}.{int(kind == 'attentions')}"
    elif match := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.(.*)", name):
        return f"output_blocks.{int(match[1]) * step + layers}.{1 + attended[int(match[1])]}.{match[2]}"
    else:
        end = next(end for end in _ENDS if name.startswith(f"{end}."))
        start, rest, kind = (
            _ENDS[end],
            name.removeprefix(f"{end}."),
            "resnets" if "resnets" in end else "attentions",
        )
    if kind == "resnets":
        part, _, tail = rest.partition(".")
        rest = f"{_RESNET[part]}.{tail}"
    return f"{start}.{rest}"


def original_vae_name(name: str, blocks: int) -> str:
    """An autoencoder's tensor name as the original files have it."""
    for old, new in (
        (r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)", r"encoder.down.\1.block.\2"),
        (r"encoder\.down_blocks\.(\d+)\.downsamplers\.0\.conv", r"encoder.down.\1.downsample.conv"),
        (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
        (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
        (r"mid_block\.attentions\.0\.to_(.)", r"mid.attn_1.\1"),
        (r"mid_block\.resnets\.0", "mid.block_1"),
        (r"mid_block\.resnets\.1", "mid.block_2"),
        (r"conv_shortcut", "nin_shortcut"),
        (r"conv_norm_out", "norm_out"),
    ):
        name = re.sub(old, new, name)
    if match := re.match(r"decoder\.up_blocks\.(\d+)\.(.*)", name):
        rest = match[2].replace("resnets.", "block.").replace("upsamplers.0.conv", "upsample.conv")
        name = f"decoder.up.{blocks - 1 - int(match[1])}.{rest}"
    return name


def write_single_file(model: Any, path: Path) -> None:
    """Write UNet, autoencoder and text encoder of a :class:`DiffusionModel` as one file in the original
    names (SD 1.x)."""
    unet, vae, text = model.unet, model.vae, model.text_encoder
    attended = {block: hasattr(unet.up_blocks[block], "attentions") for block in range(len(unet.up_blocks))}
    tensors: dict[str, Tensor] = {}
    for name, value in unet.state_dict().items():
        tensors[
            f"model.diffusion_model.{original_unet_name(name, unet.config.layers_per_block, attended)}"
        ] = value
    for name, value in vae.state_dict().items():
        flat = "attentions" in name and value.ndim == 2  # linear here, a 1 x 1 convolution there
        tensors[f"first_stage_model.{original_vae_name(name, len(vae.config.block_out_channels))}"] = (
            value[..., None, None] if flat else value
        )
    for name, value in text.state_dict().items():
        tensors[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = value
    save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, path)
