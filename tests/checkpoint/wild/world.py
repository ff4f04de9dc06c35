"""The micro base, its tensors, and what a file over it has to make of them, by the loader that defines the
file's form."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import save_file
from torch import Tensor

from auditor._checkpoint import Checkpoint, open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._diffusion.model import DiffusionModel

Tensors = dict[str, Tensor]


@dataclass
class World:
    """What files are written over and compared with."""

    opened: Checkpoint
    model: DiffusionModel
    draws: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(20))

    @cached_property
    def weights(self) -> Tensors:
        """Every tensor of UNet and text encoder, ``part.name``."""
        return {
            f"{part}.{name}": value.detach().clone()
            for part in ("unet", "text_encoder")
            for name, value in self.model.modules[part].state_dict().items()
        }

    def layer(self, part: str, *ends: str) -> str:
        """The first layer of a part whose name ends in one of these ways."""
        return next(
            name.removeprefix(f"{part}.").removesuffix(".weight")
            for name in sorted(self.weights)
            if name.startswith(f"{part}.") and name.endswith(tuple(f"{end}.weight" for end in ends))
        )

    def shape(self, layer: str, part: str = "unet") -> tuple[int, ...]:
        """Of a layer's weight."""
        return tuple(self.weights[f"{part}.{layer}.weight"].shape)

    def random(self, *shape: int) -> Tensor:
        """Numbers as small as a training's."""
        return torch.randn(*shape, generator=self.draws) * 0.1

    def pair(self, layer: str, rank: int, part: str = "unet") -> tuple[Tensor, Tensor]:
        """(up, down) of a layer; of a convolution with its kernel in ``down``."""
        rows, columns, *kernel = self.shape(layer, part)
        ones = [1] * len(kernel)
        return self.random(rows, rank, *ones), self.random(rank, columns, *kernel)

    def modules(self) -> dict[str, Any]:
        """A copy of UNet and text encoder, for a library to load into."""
        return {part: copy.deepcopy(self.model.modules[part]) for part in ("unet", "text_encoder")}


def flat(layer: str, part: str = "unet") -> str:
    """kohya's name of a layer."""
    start = {"unet": "lora_unet", "text_encoder": "lora_te_text_model"}[part]
    return f"{start}_{layer.replace('.', '_')}"


def write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    """A safetensors file."""
    save_file(
        {name: value.contiguous() for name, value in tensors.items()}, path, metadata or {"format": "pt"}
    )
    return path


def state(modules: Mapping[str, Any]) -> Tensors:
    """Every tensor of what a library loaded into, under the names of before."""
    return {
        f"{part}.{name.replace('.base_layer', '')}": value.detach().clone()
        for part, module in modules.items()
        for name, value in module.state_dict().items()
        if "lora_" not in name
    }


def by_lycoris(world: World, tensors: Tensors) -> Tensors:
    """As LyCORIS merges files of kohya's names."""
    import pytest

    pytest.importorskip("lycoris", reason="lycoris-lora is not installed")
    from lycoris.utils import merge

    modules = world.modules()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        merge([Prefixed(modules["text_encoder"])], modules["unet"], dict(tensors), 1.0)
    return state(modules)


def lycoris_function(kind: str, name: str = "diff_weight") -> Callable[..., Tensor]:
    """What LyCORIS trains with: the whole change of a layer, from its factors. (Its ``merge_to`` multiplies
    LoHa and LoKr by alpha over rank twice, release 4.1.3: that is not what was trained.)"""
    import importlib

    import pytest

    pytest.importorskip("lycoris", reason="lycoris-lora is not installed")
    found: Callable[..., Tensor] = getattr(importlib.import_module(f"lycoris.functional.{kind}"), name)
    return found


class Prefixed(torch.nn.Module):
    """A text encoder under the name that its layers have in published files."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.text_model = encoder


def by_diffusers_unet(world: World, path: Path) -> Tensors:
    """As ``UNet2DConditionModel.load_lora_adapter`` loads what ``save_lora_adapter`` wrote."""
    modules = world.modules()
    unet = modules["unet"]
    unet.load_lora_adapter(str(path.parent), weight_name=path.name, prefix=None)
    unet.fuse_lora()
    unet.unload_lora()
    return state(modules)


def by_diffusers_pipeline(world: World, path: Path) -> Tensors:
    """As ``StableDiffusionPipeline.load_lora_weights`` loads a file."""
    from diffusers import StableDiffusionPipeline

    modules, parts = world.modules(), world.model.parts
    pipeline = StableDiffusionPipeline(
        vae=parts["vae"],
        text_encoder=modules["text_encoder"],
        tokenizer=parts["tokenizer"],
        unet=modules["unet"],
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    return state(modules)


def by_peft(world: World, folder: Path) -> Tensors:
    """As ``PeftModel`` merges an adapter's folder."""
    modules = world.modules()
    merged = PeftModel.from_pretrained(modules["unet"], folder).merge_and_unload()
    return state({"unet": merged, "text_encoder": modules["text_encoder"]})


def by_hand(world: World, added: Mapping[str, Tensor]) -> Tensors:
    """What is added to each tensor, computed in the test."""
    found = dict(world.weights)
    for name, value in added.items():
        found[name] = (found[name].double() + value.reshape(found[name].shape)).float()
    return found


def difference(world: World, path: Path, wanted: Tensors) -> float:
    """How far the product's weights are from the wanted ones, relative to what the file changes (largest of
    all tensors)."""
    got = state({part: load_over(world, path).modules[part] for part in ("unet", "text_encoder")})
    assert got.keys() == wanted.keys()
    worst = 0.0
    for name, value in wanted.items():
        moved = float((value.double() - world.weights[name].double()).norm())
        off = float((got[name].double() - value.double()).norm())
        # what float32 rounds of a weight as large as this one
        rounding = 2.0**-23 * float(value.double().norm())
        worst = max(
            worst, max(0.0, off - rounding) / moved if moved > rounding else float(off > 2 * rounding)
        )
    return worst


def load_over(world: World, path: Path) -> DiffusionModel:
    """The file over the micro base, as an audit loads it."""
    return load_model(open_checkpoint(str(path), base=world.opened))


def world_of_micro() -> World:
    """The micro base."""
    opened = open_checkpoint("micro")
    return World(opened, load_model(opened))


def settings(prefix: str = "", **values: Any) -> dict[str, str]:
    """A file's metadata with peft's settings in it, as diffusers writes them."""
    config = {
        name: sorted(value) if isinstance(value, set) else value
        for name, value in LoraConfig(**values).to_dict().items()
    }
    return {
        "format": "pt",
        "lora_adapter_metadata": json.dumps(
            {prefix + name: value for name, value in config.items()}, default=str
        ),
    }
