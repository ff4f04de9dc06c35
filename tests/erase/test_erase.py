"""The erasers: which weights they touch, what they save, and what they refuse."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._erase.erase import erase, plan_erasure
from auditor._erase.job import read_options
from auditor._files.bundled import micro_world
from auditor.errors import PluginError, RefusedError, UsageError
from auditor.plugin import Eraser, Erasure
from auditor.plugin import _loader as loader
from auditor.plugin._loader import PluginRecord
from tests.conftest import short_policy

pytestmark = pytest.mark.usefixtures("nano")

WEIGHTS = Path("unet/diffusion_pytorch_model.safetensors")


def changed(folder: Path) -> set[str]:
    before, after = load_file(micro_world() / WEIGHTS), load_file(folder / WEIGHTS)
    assert before.keys() == after.keys()
    return {name for name, value in before.items() if not torch.equal(value.float(), after[name])}


@pytest.fixture(scope="module")
def erased(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By MACE itself."""
    return by_mace(tmp_path_factory.mktemp("erased") / "mace")


def by_mace(folder: Path) -> Path:
    options = read_options("micro-mace", ()) | {"steps": 5, "images": 4}
    return erase("micro", short_policy(), "mace", folder, options=options)


def test_mace_touches_keys_and_values_of_cross_attention_only(erased: Path) -> None:
    names = changed(erased)
    assert names and all(name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")) for name in names)


@pytest.mark.parametrize(("variant", "cross"), [("x", {True}), ("u", {False}), ("full", {True, False})])
def test_esd_touches_the_weights_of_its_variant(tmp_path: Path, variant: str, cross: set[bool]) -> None:
    options = read_options("micro-esd", (f"variant={variant}", "steps=2", "pool=4"))
    folder = erase("micro", short_policy(), "esd", tmp_path / "esd", options=options)
    assert {".attn2." in name for name in changed(folder)} == cross


def test_erasing_twice_with_one_seed_gives_the_same_weights(erased: Path, tmp_path: Path) -> None:
    again = by_mace(tmp_path / "again")
    assert (again / WEIGHTS).read_bytes() == (erased / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    ("concept", "sentence"),
    [
        ({"name": "Borin Talvek", "domain": "people", "prompts": ["{}"]}, "needs a mapping"),
        ({"name": "ship", "domain": "objects", "mapping": "Ship", "prompts": ["{}"]}, "the concept itself"),
        ({"name": "x " * 20, "domain": "objects", "mapping": "sky", "prompts": ["{}"]}, "cut off"),
    ],
)
def test_what_cannot_be_erased_is_said_and_nothing_written(
    tmp_path: Path, concept: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        erase(
            "micro",
            short_policy(erase=[concept]),
            "mace",
            tmp_path / "out",
            options=read_options("micro-mace", ()),
        )
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_empty_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(UsageError, match="is not empty"):
        erase("micro", short_policy(), "mace", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


# -- what an eraser may change, and what it may start from ---------------------------------------------------


class Renames(Eraser):
    """Moves one word of the text encoder, and with ``stray`` a weight of the UNet that it does not name."""

    name = "renames"
    summary = "moves the text encoder's first embedding"
    stray = False

    def changes(self) -> tuple[str, ...]:
        return ("text_encoder.*",)

    def erase(self, erasure: Erasure) -> dict[str, Any]:
        with torch.no_grad():
            erasure.model.text_encoder.get_input_embeddings().weight[7] += 1
            if self.stray:
                erasure.model.denoiser.conv_in.bias += 1
        return {}


@pytest.fixture
def renames(monkeypatch: pytest.MonkeyPatch) -> type[Renames]:
    """The eraser above, as if it were installed."""
    loaded = loader.load_plugins()
    own = PluginRecord("erasers", Renames.name, "test", "1", Renames)
    monkeypatch.setattr(loader, "load_plugins", lambda: replace(loaded, records=(*loaded.records, own)))
    return Renames


def test_an_eraser_of_the_text_encoder_is_saved_and_read_back(renames: type[Renames], tmp_path: Path) -> None:
    folder = erase("micro", short_policy(), "renames", tmp_path / "out")
    (name,) = json.loads((folder / "erasure.json").read_text())["changed"]
    assert name.startswith("text_encoder.") and name.endswith("token_embedding.weight")
    before, after = (load_model(open_checkpoint(source)) for source in ("micro", str(folder)))
    tables = [model.text_encoder.get_input_embeddings().weight for model in (before, after)]
    assert (tables[0] != tables[1]).any(dim=1).nonzero().flatten().tolist() == [7]
    assert not changed(folder), "the UNet is the base's"
    assert not (folder / "erasure").exists()


def test_changed_tensors_cannot_say_what_a_text_encoder_became(
    renames: type[Renames], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"changes text_encoder\.\*; save the result whole"):
        erase("micro", short_policy(), "renames", tmp_path / "out", save="delta")
    assert not list(tmp_path.iterdir())


def test_an_eraser_that_changes_more_than_it_says_is_named_and_nothing_is_written(
    renames: type[Renames], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renames, "stray", True)
    with pytest.raises(
        PluginError, match=r"'renames' .*changed unet\.conv_in\.bias; it says that it changes text"
    ):
        erase("micro", short_policy(), "renames", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_erased_checkpoint_is_erased_again_and_both_are_on_record(
    renames: type[Renames], erased: Path, tmp_path: Path
) -> None:
    options = read_options("micro-esd", ("variant=x", "steps=1", "pool=2"))
    delta = erase("micro", short_policy(), "esd", tmp_path / "esd", options=options, save="delta")
    file = delta / "unet-changed.safetensors"
    with pytest.raises(UsageError, match="give the base"):
        erase(str(file), short_policy(), "renames", tmp_path / "out")
    with pytest.raises(UsageError, match="save the result whole"):
        erase(str(file), short_policy(), "esd", tmp_path / "out", save="delta", over="micro")
    both = erase(str(file), short_policy(), "renames", tmp_path / "both", over="micro")
    record = json.loads((both / "erasure.json").read_text())
    assert (record["eraser"], [each["eraser"] for each in record["before"]]) == ("renames", ["esd"])
    assert record["before"][0]["before"] == [] and record["base"]["form"] == "changed tensors over a base"
    text = both / "text_encoder" / "model.safetensors"
    own = load_file(micro_world() / "text_encoder" / "model.safetensors")
    assert load_file(text).keys() == own.keys(), "under the names that the base's file has"
    model = load_model(open_checkpoint(str(both)))
    state = model.denoiser.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in load_file(file).items())
    micro = load_model(open_checkpoint("micro"))
    tables = [each.text_encoder.get_input_embeddings().weight for each in (model, micro)]
    assert not torch.equal(*tables)

    again = erase(str(erased), short_policy(), "renames", tmp_path / "again")
    assert json.loads((again / "erasure.json").read_text())["before"][0]["eraser"] == "mace"
    assert changed(again) == changed(erased)


def test_what_cannot_be_saved_is_said_before_anything_is_written(
    renames: type[Renames], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changes_a_setting(self: Renames, erasure: Erasure) -> dict[str, Any]:
        erasure.model.vae.register_to_config(scaling_factor=9.0)
        return {}

    def leaves_an_adapter(self: Renames, erasure: Erasure) -> dict[str, Any]:
        erasure.model.denoiser.add_adapter(LoraConfig(r=2, target_modules=["to_q"]), adapter_name="idle")
        return {}

    for left, sentence in (
        (changes_a_setting, "changed a configuration"),
        (leaves_an_adapter, "other tensors"),
    ):
        monkeypatch.setattr(renames, "erase", left)
        with pytest.raises(PluginError, match=sentence):
            erase("micro", short_policy(), "renames", tmp_path / left.__name__)
        assert not (tmp_path / left.__name__).exists()
    monkeypatch.setattr(renames, "changes", lambda self: ["denoiser.*"])
    with pytest.raises(PluginError, match="a tuple of patterns is right"):
        plan_erasure("micro", short_policy(), "renames")
    with pytest.raises(UsageError, match="leave out --over"):
        plan_erasure("micro", short_policy(), "esd", over="micro")


def test_a_record_that_cannot_be_written_down_is_left_out(
    renames: type[Renames], erased: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(erased, tmp_path / "odd"))
    (folder / "erasure.json").write_text('{"eraser": "\\ud800"}')
    out = erase(str(folder), short_policy(), "renames", tmp_path / "out")
    assert json.loads((out / "erasure.json").read_text())["before"] == []


def test_what_was_chosen_for_a_checkpoint_is_in_what_is_erased_from_it(
    renames: type[Renames], tmp_path: Path
) -> None:
    state = load_model(open_checkpoint("micro")).unet.state_dict()
    key = next(name for name in state if name.endswith("attn2.to_k.weight"))
    source = tmp_path / "v.safetensors"
    save_file({key: state[key] * 1.01, "v_pred": torch.empty(0)}, source)
    with pytest.raises(RefusedError, match="--prediction"):
        erase(str(source), short_policy(), "renames", tmp_path / "out", over="micro")
    chosen = {"prediction": "v_prediction"}
    with pytest.raises(UsageError, match="save the result whole"):
        erase(
            str(source),
            short_policy(),
            "renames",
            tmp_path / "out",
            over="micro",
            chosen=chosen,
            save="delta",
        )
    folder = erase(str(source), short_policy(), "renames", tmp_path / "out", over="micro", chosen=chosen)
    opened = open_checkpoint(str(folder))
    assert opened.prediction == "v_prediction" and not opened.chosen
    assert torch.equal(load_model(opened).unet.state_dict()[key], state[key] * 1.01)
