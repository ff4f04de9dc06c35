"""What one file of Stable Diffusion holds, by the names of its tensors: a whole model, a UNet, or some
tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from auditor.families.on_disk import Form, Piece, Shapes
from auditor.families.stable_diffusion.components import SINGLE_FILE_PARTS
from auditor.families.stable_diffusion.original_names import open_clip_names, unet_names, vae_names

COUNTERS = ("model_ema.decay", "model_ema.num_updates")
"""Of the average of a training."""

KNOWN = re.compile(
    r"(unet\.|model\.diffusion_model\.|diffusion_model\.)?"
    r"(conv_in|time_embedding|down_blocks|mid_block|up_blocks|conv_norm_out|conv_out|input_blocks|middle_block|output_blocks|time_embed|out)\."
    r"|(text_encoder|vae)\."
)
"""What the names of tensors begin with in a file that holds some."""

_SCHEDULE = re.compile(
    r"(log_)?(one_minus_|sqrt_|recip_|recipm1_)*alphas_cumprod(_prev)?|sqrt_recipm?1?_alphas_cumprod|betas|posterior_\w+|lvlb_weights|logvar|scale_factor"
)
_OPEN_CLIP = "cond_stage_model.model."
_OPEN_CLIP_REST = re.compile(r"(visual\..+|logit_scale|text_projection|attn_mask)")


def form_of(names: Iterable[str]) -> Form | None:
    """What a file that is no adapter seems to hold; None where no tensor is one that is known."""
    names = list(names)
    if any(name.startswith("model.diffusion_model.") for name in names) and any(
        name.startswith(tuple(SINGLE_FILE_PARTS.values())[1:]) for name in names
    ):
        return Form.SINGLE
    ends = {name.rpartition("model.")[2].removeprefix("unet.") for name in names}
    if {"conv_in.weight", "conv_norm_out.weight"} <= ends or {
        "input_blocks.0.0.weight",
        "out.0.weight",
    } <= ends:
        return Form.UNET
    return Form.DELTA if any(KNOWN.match(name) for name in names) else None


def pieces(part: str, own: Iterable[str], names: Iterable[str]) -> dict[str, Piece]:
    """Where the tensors ``own`` of a part lie in a single file with the tensors ``names``."""
    prefix, names = SINGLE_FILE_PARTS[part], list(names)
    if part == "unet":
        return {name: Piece(prefix + other) for name, other in unet_names(own).items()}
    if part == "vae":
        return {name: Piece(prefix + other) for name, other in vae_names(own).items()}
    if any(name.startswith(_OPEN_CLIP) for name in names):
        return {
            name: Piece(_OPEN_CLIP + piece.name, piece.third) for name, piece in open_clip_names(own).items()
        }
    inside = f"{prefix}transformer."
    inside += "text_model." if any(name.startswith(f"{inside}text_model.") for name in names) else ""
    return {name: Piece(inside + name) for name in own}


def is_idle(name: str, declared: Mapping[str, Shapes], left: set[str]) -> bool:
    """Is a tensor one that no program draws with: numbers of the training's schedule, OpenCLIP's image side
    and the layer that Stable Diffusion 2 skips, counters of averages that are not there?"""
    if "." not in name:
        return _SCHEDULE.fullmatch(name) is not None
    if name in COUNTERS:
        return not any(other.startswith("model_ema.") and other not in COUNTERS for other in left)
    if name.startswith(_OPEN_CLIP):
        rest = name.removeprefix(_OPEN_CLIP)
        layers = {
            int(match[1])
            for other in declared["text_encoder"]
            if (match := re.search(r"encoder\.layers\.(\d+)\.", other))
        }
        skipped = f"transformer.resblocks.{max(layers, default=-1) + 1}."
        return _OPEN_CLIP_REST.fullmatch(rest) is not None or rest.startswith(skipped)
    return False
