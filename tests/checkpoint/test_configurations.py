"""What a folder's configurations say is taken as it is meant: schedules of every sampler, averages, layers
that a text encoder leaves out; and what a file says of its prediction is asked for where it is not one
thing."""

from __future__ import annotations

import inspect
import json
import os
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.configurations import read_schedule
from auditor._checkpoint.load import load_model
from auditor._files.bundled import micro_world
from auditor.errors import RefusedError, UsageError
from auditor.families.stable_diffusion.configurations import BETAS
from auditor.families.stable_diffusion.family import STABLE_DIFFUSION
from tests.checkpoint.originals import write_single_file
from tests.faults.forks import Forks

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(micro_world(), tmp_path / "own", ignore=shutil.ignore_patterns("clip"))
    return tmp_path / "own"


def edit(path: Path, **keys: Any) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | keys), encoding="utf-8")


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # diffusers' KDPM2 on numpy 2
@pytest.mark.parametrize("name", BETAS)
def test_a_folder_saved_with_any_sampler_gives_its_noise_schedule(folder: Path, name: str) -> None:
    given = json.loads((micro_world() / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    try:
        scheduler = getattr(diffusers, name).from_config(given)
    except ImportError:  # some samplers need packages that nothing else does
        pytest.skip(f"{name} cannot be made here")
    scheduler.save_pretrained(folder / "scheduler")
    edit(folder / "model_index.json", scheduler=["diffusers", name])
    opened = open_checkpoint(str(folder))
    assert opened.drawn_digest == open_checkpoint("micro").drawn_digest
    config = load_model(opened).scheduler_config
    assert (config["beta_start"], config["beta_end"], config["beta_schedule"]) == (
        0.00085,
        0.012,
        "scaled_linear",
    )


@pytest.mark.parametrize("name", BETAS)
def test_betas_that_are_not_said_are_those_of_the_class(tmp_path: Path, name: str) -> None:
    try:
        usual = inspect.signature(getattr(diffusers, name).__init__).parameters
    except ImportError:
        pytest.skip(f"{name} cannot be looked at here")
    if "beta_start" not in usual:
        pytest.skip(f"{name} needs a package that is not installed")
    assert BETAS[name] == tuple(usual[key].default for key in ("beta_start", "beta_end", "beta_schedule"))
    (tmp_path / "scheduler_config.json").write_text(json.dumps({"_class_name": name}), encoding="utf-8")
    assert read_schedule(STABLE_DIFFUSION, tmp_path / "scheduler_config.json")["beta_start"] == BETAS[name][0]


def test_an_average_of_a_training_is_accepted(folder: Path) -> None:
    edit(folder / "unet" / "config.json", optimization_step=2_000_000, decay=0.9999, use_ema_warmup=False)
    assert open_checkpoint(str(folder)).drawn_digest == open_checkpoint("micro").drawn_digest


def test_layers_that_a_text_encoder_leaves_out_are_left_out(folder: Path) -> None:
    edit(folder / "text_encoder" / "config.json", num_hidden_layers=3)
    opened = open_checkpoint(str(folder))
    encoder = load_model(opened).text_encoder
    from transformers import CLIPTextModel

    theirs = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder").float().eval()
    ids = torch.tensor([[1002, 5, 7, 1003]])
    with torch.no_grad():
        ours, wanted = (model(ids).last_hidden_state for model in (encoder, theirs))
    assert torch.allclose(ours, wanted, atol=1e-4) and encoder.config.num_hidden_layers == 3


def test_a_unet_that_was_saved_with_its_adapter_on_is_refused_by_that(folder: Path) -> None:
    tensors = load_file(folder / UNET)
    name = next(name for name in tensors if name.endswith("attn1.to_q.weight"))
    layer = name.removesuffix(".weight")
    tensors[f"{layer}.base_layer.weight"] = tensors.pop(name)
    tensors[f"{layer}.lora_A.default.weight"] = torch.rand(4, tensors[f"{layer}.base_layer.weight"].shape[1])
    save_file(tensors, folder / UNET)
    with pytest.raises(RefusedError, match=r"saved with an adapter on .*base_layer"):
        open_checkpoint(str(folder))


def test_what_a_download_leaves_is_no_part_of_the_digest(folder: Path) -> None:
    before = open_checkpoint(str(folder))
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "x.metadata").write_text("2026-11-28", encoding="utf-8")
    assert open_checkpoint(str(folder)).root_digest == before.root_digest


# -- what is chosen ------------------------------------------------------------------------------------------


def test_which_of_two_sets_of_weights_is_meant_has_to_be_said(folder: Path) -> None:
    other = {name: (value.float() * 1.1).to(value.dtype) for name, value in load_file(folder / UNET).items()}
    save_file(other, folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    with pytest.raises(RefusedError, match="other weights"):
        open_checkpoint(str(folder))
    plain, half = (
        open_checkpoint(str(folder), chosen={"unet": f"diffusion_pytorch_model{variant}.safetensors"})
        for variant in ("", ".fp16")
    )
    assert len({plain.digest, half.digest, open_checkpoint("micro").digest}) == 3
    assert plain.beside == ("unet/diffusion_pytorch_model.fp16.safetensors",)
    loaded = load_model(half).unet.state_dict()
    assert all(torch.equal(value, other[name].float()) for name, value in loaded.items())
    with pytest.raises(UsageError, match="names no file of weights"):
        open_checkpoint(str(folder), chosen={"unet": "nothing.safetensors"})
    with pytest.raises(UsageError, match="names no file of weights"):
        open_checkpoint(str(folder), chosen={"tokenizer": "vocab.json"})


@pytest.mark.parametrize(
    "metadata",
    [
        {"modelspec.prediction_type": "v"},
        {"ss_v_parameterization": "True"},
        {"modelspec.prediction_type": "v_prediction", "ss_v_parameterization": "true"},
        {"modelspec.predict_key": "v"},
        {"modelspec.architecture": "stable-diffusion-v2-768-v/lora"},
        {"ss_base_model_version": "sd_v2_768_v"},
    ],
)
def test_a_prediction_has_to_be_chosen_where_file_and_base_disagree(
    tmp_path: Path, metadata: dict[str, str]
) -> None:
    base, tensors = open_checkpoint("micro"), load_file(micro_world() / UNET)
    unet = {name: (value.float() * 1.01).to(value.dtype) for name, value in tensors.items()}
    save_file(unet, tmp_path / "unet.safetensors", {"format": "pt"} | metadata)
    source = str(tmp_path / "unet.safetensors")
    with pytest.raises(
        RefusedError, match=r"says that it predicts v_prediction, micro says epsilon.*--prediction"
    ):
        open_checkpoint(source, base=base)
    opened = open_checkpoint(source, base=base, chosen={"prediction": "v_prediction"})
    other = open_checkpoint(source, base=base, chosen={"prediction": "epsilon"})
    assert load_model(opened).scheduler_config["prediction_type"] == "v_prediction"
    assert load_model(other).scheduler_config["prediction_type"] == "epsilon"
    assert opened.digest != other.digest and opened.drawn_digest != other.drawn_digest


def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    tensors = load_file(micro_world() / UNET)
    said = {"modelspec.prediction_type": "epsilon", "ss_v_parameterization": "True"}
    save_file(tensors, tmp_path / "unet.safetensors", said)
    with pytest.raises(RefusedError, match="contradicts itself"):
        open_checkpoint(str(tmp_path / "unet.safetensors"), base=open_checkpoint("micro"))


@pytest.mark.parametrize(("marker", "words"), [("ztsnr", "rescale_betas_zero_snr"), ("edm_mean", "EDM")])
def test_markers_of_another_schedule_are_read(tmp_path: Path, marker: str, words: str) -> None:
    tensors = load_file(micro_world() / UNET) | {marker: torch.empty(0)}
    save_file(tensors, tmp_path / "unet.safetensors")
    with pytest.raises(RefusedError, match=words):
        open_checkpoint(str(tmp_path / "unet.safetensors"), base=open_checkpoint("micro"))


def test_a_training_to_pure_noise_is_read_from_metadata(tmp_path: Path) -> None:
    save_file(
        load_file(micro_world() / UNET), tmp_path / "unet.safetensors", {"ss_zero_terminal_snr": "True"}
    )
    with pytest.raises(RefusedError, match="rescale_betas_zero_snr"):
        open_checkpoint(str(tmp_path / "unet.safetensors"), base=open_checkpoint("micro"))


@pytest.mark.parametrize(("file", "key"), [("unet", "norm_eps"), ("text_encoder", "layer_norm_eps")])
def test_a_norm_that_divides_by_less_than_nothing_is_refused(folder: Path, file: str, key: str) -> None:
    edit(folder / file / "config.json", **{key: -1})
    with pytest.raises(RefusedError, match=f"{key} = -1; a number above 0"):
        open_checkpoint(str(folder))


def test_a_file_with_a_part_of_the_weights_beside_shards_is_refused(folder: Path) -> None:
    text = folder / "text_encoder"
    whole = load_file(text / "model.safetensors")
    shard = "model-00001-of-00001.safetensors"
    save_file(whole, text / shard)
    index = {"metadata": {}, "weight_map": dict.fromkeys(whole, shard)}
    (text / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert open_checkpoint(str(folder)).files
    save_file(dict(list(whole.items())[:3]), text / "model.safetensors")
    with pytest.raises(RefusedError, match="which it lacks"):
        open_checkpoint(str(folder))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(RefusedError, match="no ordinary file"):
        open_checkpoint(str(tmp_path / "x.safetensors"), base=open_checkpoint("micro"))


def test_commands_take_what_is_chosen(folder: Path, forks: Forks) -> None:
    other = {name: (value.float() * 1.1).to(value.dtype) for name, value in load_file(folder / UNET).items()}
    save_file(other, folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    command = ["inspect", str(folder), "--full", "--format", "json"]
    refused = forks.call(*command)
    assert refused.returncode == 4 and "--component" in refused.stdout
    chosen = ["--component", "unet=diffusion_pytorch_model.fp16.safetensors"]
    taken = forks.call(*command, *chosen)
    assert (
        taken.returncode == 0
        and "unet/diffusion_pytorch_model.safetensors" in json.loads(taken.stdout)["never_read"]
    )
    wrong = forks.call(*command, "--component", "unet")
    assert wrong.returncode == 2 and "COMPONENT=FILE" in wrong.stderr


# -- another way of storing or asking is no other throw ------------------------------------------------------


def test_to_choose_what_is_there_anyway_gives_the_same_seeds(folder: Path, tmp_path: Path) -> None:
    plain = open_checkpoint(str(folder))
    for chosen in ({"prediction": "epsilon"}, {"unet": "diffusion_pytorch_model.safetensors"}):
        again = open_checkpoint(str(folder), chosen=chosen)
        assert again.drawn_digest == plain.drawn_digest and again.digest != plain.digest
    save_file(load_file(folder / UNET), tmp_path / "unet.safetensors")
    one, other = (
        open_checkpoint(str(tmp_path / "unet.safetensors"), base=plain, chosen=chosen)
        for chosen in ({}, {"prediction": "epsilon"})
    )
    assert one.drawn_digest == other.drawn_digest


def test_other_names_of_the_same_tensors_give_the_same_seeds(tmp_path: Path) -> None:
    base, tensors = open_checkpoint("micro"), load_file(micro_world() / UNET)
    key = next(name for name in tensors if name.endswith("attn2.to_k.weight"))
    layer, rows, columns = key.removesuffix(".weight"), *tensors[key].shape
    up, down = torch.rand(rows, 4), torch.rand(4, columns)
    flat = f"lora_unet_{layer.replace('.', '_')}"
    kohya = {f"{flat}.lora_up.weight": up, f"{flat}.lora_down.weight": down}
    files: list[dict[str, torch.Tensor]] = [
        {key: tensors[key] * 2},
        {f"unet.{key}": tensors[key] * 2},
        {f"unet.{key}": tensors[key].float() * 2},
        kohya,
        kohya | {f"{flat}.alpha": torch.tensor(4.0)},
        {f"{layer}.lora_B.weight": up, f"{layer}.lora_A.weight": down},
        kohya | {f"{flat}.alpha": torch.tensor(2.0)},
    ]
    seeds = []
    for number, file in enumerate(files):
        save_file(file, tmp_path / f"{number}.safetensors")
        seeds.append(open_checkpoint(str(tmp_path / f"{number}.safetensors"), base=base).drawn_digest)
    assert len(set(seeds[:3])) == 1 and len(set(seeds[3:6])) == 1 and len(set(seeds)) == 3


def test_what_a_whole_model_holds_beside_gives_no_other_seeds(tmp_path: Path) -> None:
    base = open_checkpoint("micro")
    write_single_file(load_model(base), tmp_path / "plain.safetensors")
    plain = load_file(tmp_path / "plain.safetensors")
    save_file(
        plain | {"model_ema.num_updates": torch.tensor(7), "betas": torch.rand(9)},
        tmp_path / "more.safetensors",
    )
    one, other = (
        open_checkpoint(str(tmp_path / f"{name}.safetensors"), base=base).drawn_digest
        for name in ("plain", "more")
    )
    assert one == other
