"""The names that tensors have in the original Stable Diffusion files, beside those of diffusers and
transformers.

Worked out from the tensors that a part declares, so that a UNet of any depth is covered; nothing of it is a
table of one model. Sources: the module trees of CompVis' ``openaimodel.py`` and ``model.py`` (autoencoder),
OpenCLIP's text transformer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from auditor.families.on_disk import Piece

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ALONE = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE = (
    (r"\.down_blocks\.(\d+)\.resnets\.(\d+)\.", r".down.\1.block.\2."),
    (r"\.down_blocks\.(\d+)\.downsamplers\.0\.conv\.", r".down.\1.downsample.conv."),
    (r"\.mid_block\.attentions\.0\.group_norm\.", ".mid.attn_1.norm."),
    (r"\.mid_block\.attentions\.0\.to_out\.0\.", ".mid.attn_1.proj_out."),
    (r"\.mid_block\.attentions\.0\.to_(.)\.", r".mid.attn_1.\1."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
)
_OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_THIRDS = {"q_proj": 0, "k_proj": 1, "v_proj": 2}


def unet_names(declared: Iterable[str]) -> dict[str, str]:
    """The original name of each tensor that a UNet declares, without the file's prefix."""
    names = list(declared)
    down, up = _blocks(names, "down_blocks"), _blocks(names, "up_blocks")
    return {name: _unet_name(name, down, up) for name in names}


@dataclass(frozen=True)
class _Block:
    """Where a UNet's block begins in the original list, how many layers it has, and whether they attend."""

    first: int
    layers: int
    attends: bool


def _blocks(names: list[str], kind: str) -> dict[int, _Block]:
    """The blocks of one side. The down side's list begins with ``conv_in``, and a downsampler has a place of
    its own there; an upsampler stands in its last layer's place."""
    found: dict[int, _Block] = {}
    place = 1 if kind == "down_blocks" else 0
    held: dict[int, list[str]] = {}
    for name in names:
        if match := re.match(rf"{kind}\.(\d+)\.(.+)", name):
            held.setdefault(int(match[1]), []).append(match[2])
    for number in sorted(held):
        inside = held[number]
        layers = {name.split(".")[1] for name in inside if name.startswith("resnets.")}
        attends = any(name.startswith("attentions.") for name in inside)
        found[number] = _Block(place, len(layers), attends)
        place += len(layers) + any(name.startswith("downsamplers.") for name in inside)
    return found


def _unet_name(name: str, down: dict[int, _Block], up: dict[int, _Block]) -> str:
    alone = next((start for start in _ALONE if name.startswith(f"{start}.")), None)
    if alone is not None:
        return _ALONE[alone] + name.removeprefix(alone)
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", name):
        kind, number, rest = match[1], int(match[2]), match[3]
        start = f"middle_block.{2 * number + (kind == 'attentions')}"
    elif match := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", name):
        kind, rest = match[3], match[5]
        block = (down if match[1] == "down" else up)[int(match[2])]
        side = "input" if match[1] == "down" else "output"
        start = f"{side}_blocks.{block.first + int(match[4])}.{int(kind == 'attentions')}"
    elif match := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.+)", name):
        block = down[int(match[1])]
        return f"input_blocks.{block.first + block.layers}.0.op.{match[2]}"
    elif match := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.(.+)", name):
        block = up[int(match[1])]
        return f"output_blocks.{block.first + block.layers - 1}.{1 + block.attends}.{match[2]}"
    else:
        return name
    if kind == "resnets":
        layer, _, tail = rest.partition(".")
        rest = f"{_RESNET.get(layer, layer)}.{tail}"
    return f"{start}.{rest}"


def vae_names(declared: Iterable[str]) -> dict[str, str]:
    """The original name of each tensor that an autoencoder declares, without the file's prefix."""
    names = list(declared)
    blocks = 1 + max(
        (int(match[1]) for name in names if (match := re.match(r"decoder\.up_blocks\.(\d+)\.", name))),
        default=0,
    )
    found = {}
    for name in names:
        new = name
        for old, replacement in _VAE:
            new = re.sub(old, replacement, new)
        if match := re.match(r"decoder\.up_blocks\.(\d+)\.(.+)", new):
            rest = match[2].replace("resnets.", "block.").replace("upsamplers.0.conv", "upsample.conv")
            new = f"decoder.up.{blocks - 1 - int(match[1])}.{rest}"
        found[name] = new
    return found


def open_clip_names(declared: Iterable[str]) -> dict[str, Piece]:
    """Where each tensor of a CLIP text encoder (names without ``text_model.``) lies in OpenCLIP's names:
    queries, keys and values are one tensor there."""
    found = {}
    for name in declared:
        if name in _OPEN_CLIP:
            found[name] = Piece(_OPEN_CLIP[name])
        elif match := re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name):
            place, layer, kind = f"transformer.resblocks.{match[1]}", match[2], match[3]
            if layer.startswith("self_attn.") and layer[10:] in _THIRDS:
                found[name] = Piece(f"{place}.attn.in_proj_{kind}", _THIRDS[layer[10:]])
            else:
                found[name] = Piece(f"{place}.{_OPEN_CLIP_LAYER.get(layer, layer)}.{kind}")
        else:
            found[name] = Piece(name)
    return found
