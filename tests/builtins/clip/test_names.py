"""A CLIP by its true name: open_clip loads weights into an architecture with another activation, with a
warning alone; here that is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from auditor._files.bundled import micro_world
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
    assert "-quickgelu, pretrained: openai" in STABLE_DIFFUSION.clip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(micro_world() / "clip", tmp_path / "clip")
    return tmp_path / "clip"


def test_a_folder_that_leads_to_code_is_refused(folder: Path) -> None:
    assert Clip(f"local-dir:{folder}")
    config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UsageError, match="tokenizer_kwargs"):
        Clip(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("name", "content"), [("evil.py", "raise SystemExit(1)"), ("tokenizer_config.json", '{"auto_map": {}}')]
)
def test_a_folder_with_code_in_it_is_refused(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=f"{name} is code"):
        Clip(f"local-dir:{folder}")


def test_a_repository_is_no_name_of_a_clip() -> None:
    with pytest.raises(PolicyError, match="fetch it and name the folder"):
        make_plugin("metrics", "clip-score", {"model": "hf-hub:stranger/clip"})
