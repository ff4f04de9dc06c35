"""One file over a base: a single file, a UNet, a LoRA, changed tensors; each loads to the weights that it
means."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from auditor._checkpoint import Form, open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._diffusion.geometry import weight_distances
from auditor._files.bundled import micro_world
from auditor.errors import AuditorError, RefusedError, UsageError
from tests.checkpoint.originals import write_single_file
from tests.faults.forks import Forks

pytestmark = pytest.mark.usefixtures("nano")


@pytest.fixture(scope="module")
def base() -> Any:
    """The micro base, opened and loaded."""
    opened = open_checkpoint("micro")
    return opened, load_model(opened)


def same(one: Any, other: Any) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


def test_a_single_file_in_the_original_names_is_the_same_model(base: Any, tmp_path: Path) -> None:
    opened, model = base
    write_single_file(model, tmp_path / "model.safetensors")
    single = open_checkpoint(str(tmp_path / "model.safetensors"), base=opened)
    loaded = load_model(single)
    assert single.form is Form.SINGLE and single.parameters >= opened.parameters
    for part in ("unet", "vae", "text_encoder"):
        assert same(getattr(model, part), getattr(loaded, part)), part


def test_a_single_file_with_a_part_missing_is_refused(base: Any, tmp_path: Path) -> None:
    opened, model = base
    path = tmp_path / "model.safetensors"
    write_single_file(model, path)
    tensors = load_file(path)
    save_file(
        {name: value for name, value in tensors.items() if not name.startswith("first_stage_model")}, path
    )
    with pytest.raises(RefusedError, match="has no vae"):
        open_checkpoint(str(path), base=opened)
    save_file({name: value for name, value in tensors.items() if ".input_blocks.1." not in name}, path)
    with pytest.raises(RefusedError):
        load_model(open_checkpoint(str(path), base=opened))


def test_a_unet_alone_replaces_the_bases(base: Any, tmp_path: Path) -> None:
    opened, model = base
    state = {name: value * 1.01 for name, value in model.unet.state_dict().items()}
    save_file(state, tmp_path / "unet.safetensors")
    alone = open_checkpoint(str(tmp_path / "unet.safetensors"), base=opened)
    assert alone.form is Form.UNET and alone.digest != opened.digest
    loaded = load_model(alone)
    assert all(torch.equal(value, state[name]) for name, value in loaded.unet.state_dict().items())
    distances = weight_distances(model, loaded)
    assert distances["unet"] == pytest.approx((0.01, 1.0), rel=1e-3)
    assert set(distances) >= {"attn2 keys and values", "mid_block", "down_blocks.0", "up_blocks.0"}


def test_changed_tensors_are_laid_over_the_bases(base: Any, tmp_path: Path) -> None:
    opened, model = base
    name = next(name for name in model.unet.state_dict() if name.endswith("attn2.to_k.weight"))
    save_file({name: model.unet.state_dict()[name] + 1}, tmp_path / "delta.safetensors")
    delta = open_checkpoint(str(tmp_path / "delta.safetensors"), base=opened)
    assert delta.form is Form.DELTA
    changed = [
        n
        for n, value in load_model(delta).unet.state_dict().items()
        if not torch.equal(value, model.unet.state_dict()[n])
    ]
    assert changed == [name]


@pytest.mark.parametrize("keys", ["peft", "diffusers"])
def test_a_lora_is_merged_into_the_bases_unet(base: Any, tmp_path: Path, keys: str) -> None:
    opened, _ = base
    unet = load_model(opened).unet
    unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_k"], init_lora_weights=False))
    state = {name: value.contiguous() for name, value in get_peft_model_state_dict(unet).items()}
    if keys == "diffusers":
        state = {f"unet.{name}": value for name, value in state.items()}
    save_file(state, tmp_path / "lora.safetensors")
    lora = open_checkpoint(str(tmp_path / "lora.safetensors"), base=opened)
    assert lora.form is Form.LORA
    loaded, states = load_model(lora), torch.randn(1, 16, unet.config.cross_attention_dim)
    noise = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        merged, attached = (model(noise, 5, states).sample for model in (loaded.unet, unet))
    assert torch.allclose(merged, attached, atol=1e-4) and not hasattr(loaded.unet, "peft_config")


@pytest.mark.parametrize(
    ("tensors", "error", "words"),
    [
        ({"conv_in.weight": torch.ones(3)}, RefusedError, "is of shape"),
        ({"up_blocks.9.x": torch.ones(2, 2).triu()}, RefusedError, "does not fit"),
        ({"something.else": torch.ones(2, 2).triu()}, RefusedError, "holds neither"),
        ({"add_embedding.linear_1.weight": torch.ones(2, 2).triu()}, RefusedError, "Stable Diffusion XL"),
        (
            {"double_blocks.0.img_attn.qkv.weight": torch.ones(2, 2).triu()},
            RefusedError,
            "diffusion transformer",
        ),
        (
            {"conv_in.weight": torch.rand(8, 9, 3, 3), "conv_out.weight": torch.rand(4, 8, 3, 3)},
            RefusedError,
            "inpainting",
        ),
        (
            {
                "text_encoder.layer.lora_A.weight": torch.rand(2, 2),
                "text_encoder.layer.lora_B.weight": torch.rand(2, 2),
            },
            RefusedError,
            r"x\.safetensors",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    base: Any, tmp_path: Path, tensors: dict[str, Any], error: type[AuditorError], words: str
) -> None:
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(error, match=words) as caught:
        load_model(open_checkpoint(str(tmp_path / "x.safetensors"), base=base[0]))
    assert "\n" not in str(caught.value)


def test_one_file_without_a_base_says_what_is_missing(base: Any, tmp_path: Path) -> None:
    save_file({"up_blocks.0.x": torch.ones(2, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match="--base"):
        open_checkpoint(str(tmp_path / "x.safetensors"))
    (tmp_path / "x.ckpt").write_bytes(b"pickle")
    with pytest.raises(RefusedError, match="auditor convert"):
        open_checkpoint(str(tmp_path / "x.ckpt"), base=base[0])


def test_the_root_digest_is_the_one_of_model_signing(tmp_path: Path) -> None:
    """sha256 over the files' sha256 in the order of their names, git's files and signatures left out."""
    import hashlib

    from auditor._checkpoint.admit import root_digest
    from auditor._checkpoint.survey import survey

    (tmp_path / "a").mkdir()
    (tmp_path / ".git").mkdir()
    for name, content in {
        "b": b"2",
        "a/x": b"1",
        "model.sig": b"s",
        ".git/HEAD": b"h",
        ".gitattributes": b"g",
    }.items():
        (tmp_path / name).write_bytes(content)
    wanted = hashlib.sha256(hashlib.sha256(b"1").digest() + hashlib.sha256(b"2").digest()).hexdigest()
    assert root_digest(survey("x", tmp_path), {}) == wanted


def test_inspect_reads_headers_alone_unless_asked(forks: Forks) -> None:
    command = ["inspect", "micro", "--format", "json"]
    quick = json.loads(forks.call(*command).stdout)
    assert quick["form"] == "diffusers folder" and quick["digest"] is None and quick["refused"] is None
    assert sum(part["parameters"] for part in quick["components"]) == open_checkpoint("micro").parameters
    script = (
        "import sys; from auditor._cli import cli; cli.main(['inspect', 'micro'], standalone_mode=False); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    full = json.loads(forks.call(*command, "--full").stdout)
    assert full["digest"] == open_checkpoint("micro").digest and len(full["root_digest"]) == 64
    assert (micro_world() / "model_index.json").is_file()


def test_changed_tensors_may_be_nearly_all_and_belong_to_their_base(tmp_path: Path) -> None:
    """ESD-u changes everything but cross-attention, conv_in and conv_out among it: by its metadata it is
    no UNet that lacks tensors."""
    opened = open_checkpoint("micro")
    state = load_model(opened).unet.state_dict()
    most = {name: value + 0.01 for name, value in state.items() if ".attn2." not in name}
    save_file(most, tmp_path / "delta.safetensors", {"format": "pt", "auditor_base": opened.digest})
    delta = open_checkpoint(str(tmp_path / "delta.safetensors"), base=opened)
    assert delta.form is Form.DELTA
    loaded = load_model(delta).unet.state_dict()
    assert all(torch.equal(loaded[name], most.get(name, state[name])) for name in state)
    save_file(most, tmp_path / "other.safetensors", {"format": "pt", "auditor_base": "0" * 64})
    with pytest.raises(RefusedError, match="another base"):
        open_checkpoint(str(tmp_path / "other.safetensors"), base=opened)
    save_file(most, tmp_path / "unnamed.safetensors")
    unnamed = open_checkpoint(str(tmp_path / "unnamed.safetensors"), base=opened)
    assert unnamed.form is Form.DELTA
    assert unnamed.content == f"{len(most)} of {len(state)} tensors of unet; the others are the base's"
