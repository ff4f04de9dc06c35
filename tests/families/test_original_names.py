"""The original names at the true shapes of Stable Diffusion 1.4 and 2.1: diffusers' own conversion of a file
in these names gives back the tensors that its models declare."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from open_clip.transformer import TextTransformer
from torch import Tensor

from auditor._checkpoint.architecture import declared_shapes
from auditor.families.stable_diffusion.family import STABLE_DIFFUSION
from auditor.families.stable_diffusion.names import is_buffer, plain_name
from auditor.families.stable_diffusion.original_names import open_clip_names, unet_names, vae_names

UNETS: dict[str, dict[str, Any]] = {
    "1.4": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "2.1": {
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
    },
}
VAE: dict[str, Any] = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
}


def numbered(names: dict[str, str], shapes: dict[str, tuple[int, ...]], prefix: str) -> dict[str, Tensor]:
    """A file of tensors that hold one number each, their place, so that none can be taken for another."""
    return {
        f"{prefix}{names[name]}": torch.full(
            (1, 1, 1, 1) if len(shape) == 4 else (1,) * len(shape), float(place)
        )
        for place, (name, shape) in enumerate(shapes.items())
    }


@pytest.mark.parametrize("version", UNETS)
def test_a_unets_names(version: str) -> None:
    config = UNETS[version] | {"sample_size": 64}
    shapes = declared_shapes(STABLE_DIFFUSION, "unet", config)
    names = unet_names(shapes)
    assert len(set(names.values())) == len(names)
    full = {"layers_per_block": 2, "block_out_channels": [320, 640, 1280, 1280]} | config
    full |= {"down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]}
    full |= {"up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3}
    full |= {"class_embed_type": None, "addition_embed_type": None, "num_class_embeds": None}
    made = convert_ldm_unet_checkpoint(numbered(names, shapes, "model.diffusion_model."), full)
    assert made.keys() == shapes.keys()
    assert all(float(made[name].flatten()[0]) == place for place, name in enumerate(shapes))


def test_an_autoencoders_names() -> None:
    shapes = declared_shapes(STABLE_DIFFUSION, "vae", VAE)
    names = vae_names(shapes)
    assert len(set(names.values())) == len(names)
    made = convert_ldm_vae_checkpoint(numbered(names, shapes, "first_stage_model."), VAE)
    assert made.keys() == shapes.keys()
    assert all(float(made[name].flatten()[0]) == place for place, name in enumerate(shapes))


def test_open_clips_names_are_those_of_its_model() -> None:
    config = {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    }
    declared = declared_shapes(
        STABLE_DIFFUSION, "text_encoder", config | {"vocab_size": 49408, "hidden_act": "gelu"}
    )
    pieces = open_clip_names({plain_name(name): None for name in declared if not is_buffer(name)})
    with torch.device("meta"):
        theirs = TextTransformer(layers=24, width=1024, heads=16, output_dim=1024).state_dict()
    assert {piece.name for piece in pieces.values()} == theirs.keys() - {"text_projection", "attn_mask"}
    thirds = {name: piece for name, piece in pieces.items() if piece.third is not None}
    assert len(thirds) == 24 * 6 and all(
        theirs[piece.name].shape[0] == 3 * declared.get(f"text_model.{name}", declared.get(name))[0]  # type: ignore[index]
        for name, piece in thirds.items()
    )
