"""Toys with random weights: in memory, and in a folder as diffusers lays one out."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from auditor._diffusion.model import DiffusionModel
from tests.families.toy.family import Toy
from tests.families.toy.parts import ToyPixels, ToyTable, ToyTransformer, ToyWords

TOY = Toy()
"""The family."""

_NAMES = "borin talvek zelda mirkov dorval quint"
WORDS = ToyWords(("?", *f"a an photo of person red ship castle ramp {_NAMES}".split()))
_SCHEDULE = {"_class_name": "ToyFlow", "shift": 1.5}


def _parts(seed: int) -> dict[str, nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {"transformer": ToyTransformer(), "words": ToyTable(len(WORDS.words)), "pixels": ToyPixels()}


def toy_model(seed: int = 0) -> DiffusionModel:
    """A model of the family."""
    parts = _parts(seed)
    for part in parts.values():
        part.eval().requires_grad_(False)
    return DiffusionModel({**parts, **WORDS.tokenizers()}, TOY, _SCHEDULE, f"toy {seed}")


def write_toy(folder: Path, seed: int = 0) -> Path:
    """Write a checkpoint of the family to ``folder``."""
    for name, part in _parts(seed).items():
        part.save_pretrained(folder / name, safe_serialization=True)
    index = {each.name: ["toy", each.classes[0]] for each in TOY.components}
    for name, content in (
        ("model_index.json", {"_class_name": "ToyPipeline", **index}),
        ("tokenizer/words.json", {"words": list(WORDS.words)}),
        ("scheduler/scheduler_config.json", _SCHEDULE),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder
