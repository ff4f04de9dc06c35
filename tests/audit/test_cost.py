"""The denoiser's cost, against torch's own count of the same forward pass on meta tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from auditor._files.bundled import micro_world
from auditor._files.safetensors_header import read_header
from auditor.errors import RefusedError
from auditor.families.stable_diffusion.flops import denoiser_flops

MICRO: dict[str, Any] = json.loads((micro_world() / "unet" / "config.json").read_text(encoding="utf-8"))
MICRO_WEIGHTS = micro_world() / "unet" / "diffusion_pytorch_model.safetensors"
SD1: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": [
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    ],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "norm_num_groups": 32,
    "sample_size": 64,
}
SD2: dict[str, Any] = SD1 | {
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
    "sample_size": 96,
}


def meta_unet(config: dict[str, Any]) -> Any:
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(config).eval()


def shapes_of(unet: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in unet.state_dict().items()}


def counted(unet: Any, side: int, tokens: int) -> int:
    latent = torch.empty(1, unet.config.in_channels, side, side, device="meta")
    text = torch.empty(1, tokens, unet.config.cross_attention_dim, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        unet(latent, torch.empty((), device="meta"), encoder_hidden_states=text)
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("config", "side", "tokens"),
    [(MICRO, 8, 16), (MICRO, 9, 16), (SD1, 64, 77), (SD2, 96, 77), (SD2, 65, 77)],
    ids=["micro", "micro-odd", "sd1", "sd2", "sd2-odd"],
)
def test_the_count_is_torchs_own(config: dict[str, Any], side: int, tokens: int) -> None:
    unet = meta_unet(config)
    assert denoiser_flops(config, shapes_of(unet), side, tokens) == pytest.approx(
        counted(unet, side, tokens), rel=1e-3
    )


def test_the_header_names_the_tensors_and_shapes_of_the_micro_unet() -> None:
    assert read_header(MICRO_WEIGHTS).shapes == shapes_of(meta_unet(MICRO))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b'{"a": {}}',
        (9).to_bytes(8, "little") + b"{",
    ],
    ids=["empty", "endless", "no-object", "no-shape", "cut-off"],
)
def test_a_malformed_header_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(RefusedError, match="header"):
        read_header(path)


@pytest.mark.parametrize(
    "change",
    [
        {"only_cross_attention": [True, False]},
        {"dual_cross_attention": True},
        {"down_block_types": ["AttnDownBlock2D"]},
    ],
)
def test_a_unet_that_is_built_otherwise_is_not_counted(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not known"):
        denoiser_flops(MICRO | change, {}, 8, 77)
