"""Weights beside the audited ones are the same model or refused by name; what cannot be compared is named
(S18)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from auditor._checkpoint import open_checkpoint
from auditor._files.bundled import micro_world
from auditor.errors import RefusedError

pytestmark = pytest.mark.usefixtures("nano")

STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(micro_world(), tmp_path / "x"))


def tensors(folder: Path, part: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(folder / part / f"{STEMS[part]}.safetensors")
    return found


@pytest.mark.parametrize("part", STEMS)
@pytest.mark.parametrize(
    "name", ["{}.fp16", "{}.non_ema", "{}-00001-of-00002", "model-of-somebody", "{}.fp32"]
)
def test_other_weights_beside_the_audited_ones_are_refused_by_name(
    folder: Path, part: str, name: str
) -> None:
    file = f"{name.format(STEMS[part])}.safetensors"
    own = tensors(folder, part)
    save_file(
        own | {first: value * 1.01 for first, value in own.items() if value.ndim > 1}, folder / part / file
    )
    with pytest.raises(RefusedError, match=f"{part}/{file} holds other weights than "):
        open_checkpoint(str(folder))


def test_the_same_weights_in_another_precision_are_the_same_model(folder: Path) -> None:
    own = tensors(folder, "unet")
    save_file(
        {name: value.float() for name, value in own.items()},
        folder / "unet" / "diffusion_pytorch_model.fp32.safetensors",
    )
    shutil.copy(
        folder / "unet" / "diffusion_pytorch_model.safetensors",
        folder / "unet" / "diffusion_pytorch_model.fp16.safetensors",
    )
    found = open_checkpoint(str(folder))
    assert found.digest == open_checkpoint("micro").digest
    assert found.beside == (
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp32.safetensors",
    )


def test_a_rounding_that_hides_a_change_is_no_rounding(folder: Path) -> None:
    """float16 and bfloat16 copies of one model differ by up to 1/256 a weight: room enough for what was
    erased."""
    own = tensors(folder, "unet")
    file = folder / "unet" / "diffusion_pytorch_model.bf16.safetensors"
    save_file({name: value.to(torch.bfloat16) for name, value in own.items()}, file)
    with pytest.raises(RefusedError, match="holds other weights"):
        open_checkpoint(str(folder))


def test_a_part_of_a_model_is_another_model(folder: Path) -> None:
    save_file(
        {"conv_in.bias": tensors(folder, "unet")["conv_in.bias"].to(torch.int8)},
        folder / "unet" / "x.safetensors",
    )
    with pytest.raises(RefusedError, match=r"the first is conv_in\.bias"):
        open_checkpoint(str(folder))


def test_buffers_and_older_names_are_no_difference(folder: Path) -> None:
    own = tensors(folder, "text_encoder")
    older = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in own.items()}
    buffer = {"text_model.embeddings.position_ids": torch.arange(16).view(1, 16)}
    save_file(older | buffer, folder / "text_encoder" / "model.fp16.safetensors")
    assert open_checkpoint(str(folder)).beside == ("text_encoder/model.fp16.safetensors",)


def test_another_way_to_store_the_same_values_is_no_other_throw(folder: Path) -> None:
    before = open_checkpoint(str(folder))
    for part, stem in STEMS.items():
        own = {name: value.float() for name, value in tensors(folder, part).items()}
        if part == "text_encoder":
            own["text_model.embeddings.position_ids"] = torch.tensor([[7] * 16])
        save_file(own, folder / part / f"{stem}.safetensors")
    after = open_checkpoint(str(folder))
    assert before.digest != after.digest and before.drawn_digest == after.drawn_digest


def test_one_file_and_its_index_are_one_set_only_where_they_agree(folder: Path) -> None:
    part = folder / "text_encoder"
    own = tensors(folder, "text_encoder")
    save_file({name: value * 1.5 for name, value in own.items()}, part / "part.safetensors")
    (part / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(own, "part.safetensors")})
    )
    with pytest.raises(RefusedError, match="holds other weights"):
        open_checkpoint(str(folder))
    save_file(own, part / "part.safetensors")
    assert open_checkpoint(str(folder)).beside == ("text_encoder/model.safetensors",)


def test_an_index_that_nobody_follows_is_refused_with_its_shards(folder: Path) -> None:
    own = tensors(folder, "unet")
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors.index.json").write_text("{}")
    save_file({"extra": torch.ones(2, 2)} | own, folder / "unet" / "stale.safetensors")
    with pytest.raises(RefusedError, match="the first is extra"):
        open_checkpoint(str(folder))


def test_what_cannot_be_compared_is_named(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"never opened")
    (folder / "v1-5.ckpt").write_bytes(b"never opened")
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "model.safetensors").write_bytes(b"draws nothing")
    assert open_checkpoint(str(folder)).beside == ("unet/diffusion_pytorch_model.bin", "v1-5.ckpt")
