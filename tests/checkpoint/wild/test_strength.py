"""How strongly a LoRA is added, from everything that a file can say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.adapters.strength import Settings, Strength, show
from auditor.errors import RefusedError
from tests.checkpoint.wild.world import World, difference, flat, settings, world_of_micro, write
from tests.checkpoint.wild.world import by_hand as with_added

pytestmark = pytest.mark.usefixtures("nano")

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def world() -> World:
    return world_of_micro()


def written(world: World, folder: Path, alpha: Tensor | None) -> tuple[Path, Tensor]:
    """A kohya file of one layer of rank 4, and its product."""
    up, down = world.pair(LAYER, 4)
    named = {f"{flat(LAYER)}.lora_up.weight": up, f"{flat(LAYER)}.lora_down.weight": down}
    if alpha is not None:
        named[f"{flat(LAYER)}.alpha"] = alpha
    return write(folder / "x.safetensors", named), up.double() @ down.double()


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize(
    "kind", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32]
)
def test_an_alpha_is_a_number_of_any_kind(
    world: World, tmp_path: Path, kind: torch.dtype, shape: tuple[int, ...]
) -> None:
    path, product = written(world, tmp_path, torch.full(shape, 2, dtype=kind))
    assert difference(world, path, with_added(world, {f"unet.{LAYER}.weight": product / 2})) < 1e-6
    assert "strength 0.5" in open_checkpoint(str(path), base=world.opened).content


@pytest.mark.parametrize(
    "alpha", [torch.tensor(0.0), torch.tensor(-1.0), torch.tensor([1.0, 2.0]), torch.empty(0)]
)
def test_an_alpha_that_is_no_strength_is_refused(world: World, tmp_path: Path, alpha: Tensor) -> None:
    path, _ = written(world, tmp_path, alpha)
    with pytest.raises(RefusedError, match="alpha"):
        open_checkpoint(str(path), base=world.opened)


def test_where_nothing_says_it_one_is_assumed_and_said(world: World, tmp_path: Path) -> None:
    path, product = written(world, tmp_path, None)
    assert difference(world, path, with_added(world, {f"unet.{LAYER}.weight": product})) < 1e-6
    assert "assumed for 1" in open_checkpoint(str(path), base=world.opened).content
    assert show({"a": Strength(4.0), "b": Strength(0.25, assumed=True), "c": Strength(4.0)}) == (
        "0.25 (1 layer), 4 (2 layers); assumed for 1, the file does not say"
    )


@pytest.mark.parametrize(
    ("values", "factor"),
    [
        ({"r": 4, "lora_alpha": 16}, 4.0),
        ({"r": 4, "lora_alpha": 16, "use_rslora": True}, 8.0),
        ({"r": 8, "lora_alpha": 16, "rank_pattern": {"attn1.to_q": 4}}, 4.0),
        ({"r": 8, "lora_alpha": 16, "rank_pattern": {f"^{LAYER}": 4}, "alpha_pattern": {"to_q": 2}}, 0.5),
        ({"r": 4, "lora_alpha": 16, "alpha_pattern": {"to_k": 1, "attn2.to_q": 1}}, 4.0),
        ({"lora_alpha": 2}, 0.5),
        ({}, 2.0),  # peft's own alpha is 8
    ],
)
def test_settings_of_peft_are_read_as_peft_reads_them(values: dict[str, Any], factor: float) -> None:
    assert Settings("x", values).strength(LAYER, 4) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"r": 8, "lora_alpha": 16}, "of rank 4, and the settings in the file say 8"),
        ({"lora_alpha": 0}, "a number above 0"),
        ({"lora_alpha": "16"}, "a number above 0"),
        ({"lora_alpha": True}, "a number above 0"),
        ({"rank_pattern": [4]}, "no object"),
        ({"rank_pattern": {"(a+)+$": 4}}, "only names of layers"),
        ({"alpha_pattern": {"to_q": -1}}, "a number above 0"),
    ],
)
def test_settings_that_no_strength_follows_from_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        Settings("x", values).strength(LAYER, 4)


@pytest.mark.parametrize(
    ("targets", "inside"),
    [
        (["to_q"], True),
        (["attn1.to_q", "to_v"], True),
        ([LAYER], True),
        (["to_k"], False),
        (["q"], False),
        ("all-linear", True),
        (r".*attn1\.to_(q|k)", True),
        (r".*attn2\.to_q", False),
        (r"(.*)+attn1", False),
        (r"(", False),
        (r"([\w.]|)" * 40 + "Z", False),
        (r"(do|do)(wn|wn)(_b|_b)(lo|lo)Z", False),
        ({"to_q": 1}, False),
    ],
)
def test_layers_that_peft_would_not_load_are_refused(targets: Any, inside: bool) -> None:
    own = Settings("x", {"target_modules": targets})
    if inside:
        own.refuse_outside(LAYER)
    else:
        with pytest.raises(RefusedError, match="target_modules"):
            own.refuse_outside(LAYER)


@pytest.mark.parametrize(
    "values",
    [
        {"peft_type": "LOHA"},
        {"bias": "all"},
        {"modules_to_save": ["conv_in"]},
        {"layer_replication": [[0, 2]]},
        {"fan_in_fan_out": True},
        {"init_lora_weights": "olora"},
        {"exclude_modules": ["to_q"]},
        {"use_rslora": 1},
        {"use_rslora": "true"},
        {"use_dora": 1},
        {"layers_to_transform": [0]},
        {"layers_pattern": "down_blocks"},
        {"use_bdlora": {"a": 1}},
        {"something_new": 3},
    ],
)
def test_settings_of_more_than_products_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        Settings("x", values)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"transformer.r": 4}, "belongs to no part"),
        ({"unet.r": 4, "r": 4}, "some of its settings name a part"),
        ({"text_encoder.r": 4}, "settings of the text_encoder, and no tensors of it"),
        ({"r": 4}, "its tensors name the part that they belong to, and its settings do not"),
    ],
)
def test_settings_of_no_part_are_refused(
    world: World, tmp_path: Path, keys: dict[str, Any], words: str
) -> None:
    up, down = world.pair(LAYER, 4)
    named = {f"unet.{LAYER}.lora_A.weight": down, f"unet.{LAYER}.lora_B.weight": up}
    path = write(tmp_path / "x.safetensors", named, {"lora_adapter_metadata": json.dumps(keys)})
    with pytest.raises(RefusedError, match=words):
        open_checkpoint(str(path), base=world.opened)


def test_settings_are_said_in_one_place(world: World, tmp_path: Path) -> None:
    up, down = world.pair(LAYER, 4)
    named = {f"{LAYER}.lora_A.weight": down, f"{LAYER}.lora_B.weight": up}
    meta = settings(r=4, lora_alpha=4, target_modules=[LAYER])
    path = write(tmp_path / "adapter_model.safetensors", named, meta)
    assert "strength 1 " in open_checkpoint(str(path), base=world.opened).content
    path.with_name("adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}), encoding="utf-8")
    with pytest.raises(RefusedError, match="says its strength twice"):
        open_checkpoint(str(path), base=world.opened)


def test_every_linear_layer_is_no_convolution() -> None:
    with pytest.raises(RefusedError, match="target_modules"):
        Settings("x", {"target_modules": "all-linear"}).refuse_outside("down_blocks.0.resnets.0.conv1", 4)


def test_peft_names_take_the_settings_beside_them_whatever_the_file_is_called(
    world: World, tmp_path: Path
) -> None:
    up, down = world.pair(LAYER, 4)
    start = f"base_model.model.{LAYER}"
    path = write(tmp_path / "own.safetensors", {f"{start}.lora_A.weight": down, f"{start}.lora_B.weight": up})
    assert "strength 1 " in open_checkpoint(str(path), base=world.opened).content
    path.with_name("adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 16}), encoding="utf-8")
    opened = open_checkpoint(str(path), base=world.opened)
    assert "strength 4 " in opened.content and "adapter_config.json" in opened.files
    assert (
        difference(
            world, path, with_added(world, {f"unet.{LAYER}.weight": 4 * (up.double() @ down.double())})
        )
        < 1e-6
    )


@pytest.mark.parametrize("role", ["lora_up.weight", "hada_w1_a", "lokr_w1", "on_input"])
def test_a_product_for_a_vector_is_refused_with_the_reason(world: World, tmp_path: Path, role: str) -> None:
    norm = flat(world.layer("unet", "norm1"))
    held = {
        "lora_up.weight": ("lora_up.weight", "lora_down.weight"),
        "hada_w1_a": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
        "lokr_w1": ("lokr_w1", "lokr_w2"),
        "on_input": ("on_input", "weight"),
    }[role]
    tensors = {f"{norm}.{name}": torch.ones(()) if name == "on_input" else torch.rand(64, 1) for name in held}
    path = write(tmp_path / "x.safetensors", tensors)
    with pytest.raises(RefusedError, match="does not fit its base"):
        open_checkpoint(str(path), base=world.opened)


@pytest.mark.parametrize("shape", [(), (4,)])
def test_a_factor_that_is_no_matrix_is_refused_with_the_reason(
    world: World, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    named = {f"{flat(LAYER)}.lokr_{role}": torch.rand(4, 4) for role in ("w1_a", "w2_a", "w2_b")}
    path = write(tmp_path / "x.safetensors", named | {f"{flat(LAYER)}.lokr_w1_b": torch.ones(shape)})
    with pytest.raises(RefusedError, match="does not fit its base"):
        open_checkpoint(str(path), base=world.opened)
