"""Configurations that steer a library to other code, other weights or another way of drawing: each is refused
by its key, and no request leaves the process, in admission or in loading."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._files.bundled import micro_world
from auditor.errors import RefusedError

EVIL = "stranger/repository"
STEERING: dict[str, tuple[str, dict[str, Any]]] = {
    "kernels by another name": ("text_encoder/config.json", {"_attn_implementation_internal": EVIL}),
    "kernels": ("text_encoder/config.json", {"_attn_implementation": EVIL}),
    "kernels of experts": ("text_encoder/config.json", {"_experts_implementation_internal": EVIL}),
    "attention from elsewhere": ("text_encoder/config.json", {"attn_implementation": EVIL}),
    "code of its own": ("text_encoder/config.json", {"auto_map": {"AutoModel": f"{EVIL}--model.Model"}}),
    "tracing": ("text_encoder/config.json", {"torchscript": True}),
    "heads taken out": ("text_encoder/config.json", {"pruned_heads": {"0": [0]}}),
    "tied weights": ("text_encoder/config.json", {"tie_word_embeddings": True}),
    "weights from elsewhere": (
        "text_encoder/config.json",
        {"transformers_weights": f"{EVIL}/model.safetensors"},
    ),
    "a base model": ("text_encoder/config.json", {"base_model_name_or_path": EVIL}),
    "quantised": ("text_encoder/config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}),
    "a task's parameters": ("text_encoder/config.json", {"task_specific_params": {"x": EVIL}}),
    "gradient checkpoints": ("text_encoder/config.json", {"gradient_checkpointing": True}),
    "an adapter of the UNet": ("unet/config.json", {"peft_config": {"base_model_name_or_path": EVIL}}),
    "attention of the UNet": ("unet/config.json", {"attention_backend": EVIL}),
    "a UNet's code": ("unet/config.json", {"auto_map": {"AutoModel": EVIL}}),
    "boxes": ("unet/config.json", {"attention_type": "gated"}),
    "guidance as an input": ("unet/config.json", {"time_cond_proj_dim": 64}),
    "more conditions": ("unet/config.json", {"encoder_hid_dim_type": "ip_image_proj", "encoder_hid_dim": 64}),
    "a moved autoencoder": ("vae/config.json", {"shift_factor": 0.1}),
    "means of latents": ("vae/config.json", {"latents_mean": [1.0, 1.0, 1.0, 1.0]}),
    "an autoencoder's code": ("vae/config.json", {"trust_remote_code": True}),
    "another pipeline": ("model_index.json", {"_class_name": "StableDiffusionPipelineSafe"}),
    "a pipeline of its own": ("model_index.json", {"_class_name": [EVIL, "Pipeline"]}),
    "one more component": ("model_index.json", {"controlnet": ["diffusers", "ControlNetModel"]}),
    "custom pipelines": ("model_index.json", {"custom_pipeline": EVIL}),
    "a tokenizer's code": ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": [EVIL, None]}}),
    "a flow": ("scheduler/scheduler_config.json", {"use_flow_sigmas": True}),
    "a scheduler's code": ("scheduler/scheduler_config.json", {"auto_map": {"x": EVIL}}),
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Every address that the process looked up or connected to."""
    found: list[object] = []

    def refuse(*arguments: object, **_: object) -> Any:
        found.append(arguments)
        raise OSError("there is no network here")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield found


@pytest.mark.parametrize("name", STEERING)
def test_a_configuration_that_steers_is_refused_and_nothing_is_asked(
    name: str, tmp_path: Path, asked: list[object]
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(micro_world(), folder, ignore=shutil.ignore_patterns("clip"))
    file, keys = STEERING[name]
    config = json.loads((folder / file).read_text(encoding="utf-8"))
    (folder / file).write_text(json.dumps(config | keys), encoding="utf-8")
    with pytest.raises(RefusedError, match="|".join([*keys, "is drawn by", "code of its own"])) as caught:
        load_model(open_checkpoint(str(folder)))
    assert "\n" not in str(caught.value) and not asked


def test_the_sound_checkpoint_asks_nothing_either(asked: list[object]) -> None:
    load_model(open_checkpoint("micro"))
    assert not asked


def test_libraries_are_told_to_run_no_code_of_strangers() -> None:
    script = (
        "import auditor, os; from diffusers.utils import constants; "
        "assert constants.DIFFUSERS_DISABLE_REMOTE_CODE; "
        "assert (os.environ['USE_HUB_KERNELS'], os.environ['TRUST_REMOTE_CODE']) == ('NO', 'false')"
    )
    told = {"DIFFUSERS_DISABLE_REMOTE_CODE": "false", "USE_HUB_KERNELS": "YES", "TRUST_REMOTE_CODE": "true"}
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | told)
