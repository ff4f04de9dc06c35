"""A checkpoint is judged before it is loaded: each flaw, one sentence, nothing unpickled."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._files.bundled import micro_world
from auditor.errors import AuditorError, RefusedError, UsageError

pytestmark = pytest.mark.usefixtures("nano")

UNET = Path("unet/diffusion_pytorch_model.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the micro base to spoil."""
    return Path(shutil.copytree(micro_world(), tmp_path / "checkpoint"))


def edit(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class _Canary:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return (Path.touch, (Path("canary"),))  # type: ignore[return-value]


def pickled_instead_of_safetensors(folder: Path) -> None:
    (folder / UNET).unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(_Canary()))


def broken_safetensors_beside_a_pickle(folder: Path) -> None:
    (folder / UNET).write_bytes(b"\x10\0\0\0\0\0\0\0 not a header at all")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(_Canary()))


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no unet": (lambda f: shutil.rmtree(f / "unet"), "has no unet"),
    "no index": (lambda f: (f / "model_index.json").unlink(), "holds no model_index.json"),
    "index is a list": (lambda f: (f / "model_index.json").write_text("[]"), "not a JSON object"),
    "another architecture": (
        lambda f: edit_json(f / "model_index.json", unet=["diffusers", "FluxTransformer2DModel"]),
        "only UNet2DConditionModel can be audited",
    ),
    "remote code": (
        lambda f: edit_json(f / "model_index.json", unet=["my_module", "Pipeline"]),
        "only UNet2DConditionModel",
    ),
    "unknown prediction": (
        lambda f: edit_json(f / "scheduler/scheduler_config.json", prediction_type="flow"),
        "prediction_type",
    ),
    "NaN weights": (
        lambda f: edit(f / UNET, lambda t: t["conv_in.bias"].fill_(float("nan"))),
        "'conv_in.bias' holds NaN",
    ),
    "zero weights": (
        lambda f: edit(f / UNET, lambda t: [v.zero_() for v in t.values()]),
        "every weight is constant",
    ),
    "missing tensor": (lambda f: edit(f / UNET, lambda t: t.pop("conv_in.bias")), "1 missing tensors"),
    "extra tensor": (
        lambda f: edit(f / UNET, lambda t: t.update(backdoor=torch.ones(1))),
        "1 unexpected tensors",
    ),
    "wrong shape": (
        lambda f: edit(f / UNET, lambda t: t.update({"conv_in.bias": torch.ones(3)})),
        "does not load|mismatched",
    ),
    "truncated": (
        lambda f: (f / UNET).write_bytes((f / UNET).read_bytes()[:100_000]),
        "not a sound safetensors file",
    ),
    "a shard index that leads elsewhere": (
        lambda f: (f / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(
            '{"weight_map": {"conv_in.bias": "x.bin"}}'
        ),
        "would load weights from elsewhere",
    ),
    "an adapter of the text encoder": (
        lambda f: (f / "text_encoder/adapter_config.json").write_text("{}"),
        "from elsewhere",
    ),
    "quantisation": (
        lambda f: edit_json(f / "unet/config.json", quantization_config={"quant_method": "x"}),
        "asks for quantisation",
    ),
    "a nonsense configuration": (
        lambda f: edit_json(f / "unet/config.json", block_out_channels=5),
        "does not load",
    ),
    "pickle only": (pickled_instead_of_safetensors, "only safetensors weights are read"),
    "pickle beside broken safetensors": (broken_safetensors_beside_a_pickle, "not a sound safetensors file"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_checkpoint_is_refused_with_one_sentence(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    spoil, sentence = SPOILED[name]
    spoil(folder)
    with pytest.raises(RefusedError, match=sentence) as caught:
        load_model(open_checkpoint(str(folder)))
    assert "\n" not in str(caught.value) and caught.value.exit_code == 4
    assert not (folder.parent / "canary").exists()


def test_nothing_there_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="There is no checkpoint at /nowhere"):
        open_checkpoint("/nowhere")


def test_a_checkpoint_that_changes_while_it_loads_is_refused(folder: Path) -> None:
    opened = open_checkpoint(str(folder))
    edit(folder / UNET, lambda tensors: tensors["conv_in.bias"].add_(1))
    with pytest.raises(AuditorError, match="changed on disk"):
        load_model(opened)


def test_the_digest_names_the_bytes(folder: Path) -> None:
    before = open_checkpoint(str(folder)).digest
    (folder / "README.md").write_text("a card may change")
    assert open_checkpoint(str(folder)).digest == before == open_checkpoint("micro").digest
    edit(folder / UNET, lambda tensors: tensors["conv_in.bias"].add_(1))
    assert open_checkpoint(str(folder)).digest != before
