"""A CLIP by its true name: open_clip loads weights into an architecture with another activation, with a
warning alone; here that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from auditor.builtins.clip.model import Clip
from auditor.builtins.clip.options import ClipOptions
from auditor.errors import PolicyError, UsageError
from auditor.plugin import make_plugin
from auditor.policy.presets import STABLE_DIFFUSION


@pytest.mark.parametrize("kind", ["clip-score", "clip-frechet"])
def test_openais_weights_need_quickgelu(kind: str) -> None:
    with pytest.raises(PolicyError, match="model: ViT-B-32-quickgelu is right"):
        make_plugin("metrics", kind, {"model": "ViT-B-32", "pretrained": "openai"})
    assert make_plugin("metrics", kind, {"model": "ViT-B-32-quickgelu", "pretrained": "openai"})


@pytest.mark.parametrize(
    ("name", "pretrained", "right"),
    [
        ("ViT-B-16", "dfn2b", "ViT-B-16-quickgelu"),
        ("ViT-L-14", "metaclip_400m", "ViT-L-14-quickgelu"),
    ],
)
def test_other_weights_are_asked_of_open_clip_before_they_are_fetched(
    name: str, pretrained: str, right: str
) -> None:
    with pytest.raises(UsageError, match=f"name '{right}'"):
        Clip(name, pretrained)


def test_every_bundled_document_names_a_clip_that_is_built_as_it_was_trained() -> None:
    root, found = Path(__file__).parents[3], []

    def look(value: Any) -> None:
        if isinstance(value, dict):
            if {"model", "pretrained"} <= value.keys():
                found.append(ClipOptions(model=value["model"], pretrained=value["pretrained"]))
            for inner in value.values():
                look(inner)
        elif isinstance(value, list):
            for inner in value:
                look(inner)

    for file in (*root.glob("policies/**/*.yaml"), *root.glob("examples/**/*.yaml")):
        look(yaml.safe_load(file.read_text(encoding="utf-8")))
    assert len(found) > 5
    assert "-quickgelu, pretrained: openai" in STABLE_DIFFUSION.detector
