"""Checkpoints of Stable Diffusion's true shape with random weights, and what each step with them takes; run
as a script.

``python -m tests.science.true_size make FOLDER sd1|sd2|sd21 [SEED]`` writes one; ``... measure STEP FOLDER
WORK`` does one step in a process of its own and prints seconds and peak memory as JSON.
"""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "sd1": {
        "attention_head_dim": 8,
        "width": 768,
        "layers": 12,
        "heads": 12,
        "linear": False,
        "predicts": "epsilon",
        "act": "quick_gelu",
        "pixels": 512,
    },
    "sd2": {
        "attention_head_dim": [5, 10, 20, 20],
        "width": 1024,
        "layers": 23,
        "heads": 16,
        "linear": True,
        "predicts": "v_prediction",
        "act": "gelu",
        "pixels": 512,
    },
}
SHAPES["sd21"] = SHAPES["sd2"] | {"pixels": 768, "upcast": True}


def parts_of(family: str) -> dict[str, Any]:
    """UNet, autoencoder and text encoder of this family's shape, made on torch's default device with the
    libraries' own first weights."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    shape = SHAPES[family]
    unet = UNet2DConditionModel(
        sample_size=shape["pixels"] // 8,
        block_out_channels=(320, 640, 1280, 1280),
        down_block_types=(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
        attention_head_dim=shape["attention_head_dim"],
        cross_attention_dim=shape["width"],
        use_linear_projection=shape["linear"],
        upcast_attention=shape.get("upcast", False),
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=shape["pixels"],
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=shape["width"],
            intermediate_size=4 * shape["width"],
            num_hidden_layers=shape["layers"],
            num_attention_heads=shape["heads"],
            hidden_act=shape["act"],
            projection_dim=768,
        )
    )
    return {"unet": unet, "text_encoder": text, "vae": vae}


def schedule_of(family: str) -> Any:
    """The noise schedule of this family, as diffusers' scheduler."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        prediction_type=SHAPES[family]["predicts"],
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
    )


def make(folder: Path, family: str, seed: int = 0) -> None:
    """Write a diffusers folder of this family's shape, in half precision."""
    import torch
    from safetensors.torch import save_file

    from auditor._files.bundled import micro_world

    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        parts = parts_of(family)
    for name, model in parts.items():
        model.save_config(folder / name) if name != "text_encoder" else model.config.save_pretrained(
            folder / name
        )
        tensors = {}
        for key, value in model.state_dict().items():
            drawn = torch.randn(value.shape, generator=generator) * 0.02
            tensors[key] = (drawn + 1 if "norm" in key and key.endswith("weight") else drawn).half()
        file = "model" if name == "text_encoder" else "diffusion_pytorch_model"
        save_file(tensors, folder / name / f"{file}.safetensors")
    schedule_of(family).save_config(folder / "scheduler")
    write_words(folder, micro_world())


def write_words(folder: Path, world: Path) -> None:
    """Put the tokenizer of a small world into a folder of true shape: its words alone, at CLIP's length."""
    shutil.copytree(world / "tokenizer", folder / "tokenizer")
    config = folder / "tokenizer" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_max_length": 77}))
    shutil.copyfile(world / "model_index.json", folder / "model_index.json")


def measure(step: str, folder: Path, work: Path) -> dict[str, float]:
    """Do one step and say how long it took, and how much memory the process held at most."""
    actions: dict[str, Callable[[Path, Path], float]] = {
        "sha256": _sha256,
        "inspect": _inspect,
        "admit": _admit,
        "load": _load,
        "single file": _single,
        "unet": _unet,
        "lora": _lora,
        "two denoising steps": _denoise,
        "one LoRA step": lambda f, w: _train(f, "lora"),
        "one full step": lambda f, w: _train(f, "full"),
    }
    seconds = actions[step](folder, work)
    return {"seconds": seconds, "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def _timed(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def _sha256(folder: Path, work: Path) -> float:
    def read() -> None:
        for path in sorted(folder.rglob("*.safetensors")):
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while block := file.read(2**22):
                    digest.update(block)

    return _timed(read)


def _inspect(folder: Path, work: Path) -> float:
    from auditor._checkpoint.inspection import inspect

    found = inspect(str(folder))
    assert found.refused is None, found.refused
    return _timed(lambda: inspect(str(folder)))


def _open(folder: Path) -> Any:
    from auditor._checkpoint import open_checkpoint

    return open_checkpoint(str(folder))


def _admit(folder: Path, work: Path) -> float:
    _open_architecture(folder)
    return _timed(lambda: _open(folder))


def _open_architecture(folder: Path) -> None:
    """The libraries' imports, which are not what is measured."""
    from auditor._checkpoint.architecture import declared_shapes
    from auditor.families.stable_diffusion.family import STABLE_DIFFUSION

    declared_shapes(STABLE_DIFFUSION, "unet", json.loads((folder / "unet" / "config.json").read_text()))


def _loaded(opened: Any) -> Any:
    from auditor._checkpoint.load import load_model

    return load_model(opened)


def _load(folder: Path, work: Path) -> float:
    opened = _open(folder)
    return _timed(lambda: _loaded(opened))


def _over(file: Path, folder: Path) -> float:
    from auditor._checkpoint import open_checkpoint

    base = _open(folder)
    return _timed(lambda: _loaded(open_checkpoint(str(file), base=base)))


def _single(folder: Path, work: Path) -> float:
    from tests.checkpoint.originals import write_single_file

    file = work / "single.safetensors"
    if not file.exists():
        write_single_file(_loaded(_open(folder)), file)
    return _over(file, folder)


def _unet(folder: Path, work: Path) -> float:
    return _over(folder / "unet" / "diffusion_pytorch_model.safetensors", folder)


def _lora(folder: Path, work: Path) -> float:
    import torch
    from safetensors.torch import save_file

    from auditor._files.safetensors_header import read_header

    tensors = {}
    for name, shape in read_header(folder / "unet" / "diffusion_pytorch_model.safetensors").shapes.items():
        if name.endswith(("to_q.weight", "to_k.weight", "to_v.weight")):
            stem = name.removesuffix(".weight")
            tensors[f"unet.{stem}.lora_A.weight"] = torch.randn(4, shape[1]) * 0.01
            tensors[f"unet.{stem}.lora_B.weight"] = torch.randn(shape[0], 4) * 0.01
    save_file(tensors, work / "lora.safetensors")
    return _over(work / "lora.safetensors", folder)


def _denoise(folder: Path, work: Path) -> float:
    from auditor._diffusion.sampling import draw
    from auditor.policy import Sampler

    model = _loaded(_open(folder))
    model.text_states(["", "a photo of a cat"])
    return _timed(lambda: draw(model, ["a photo of a cat"], [1], Sampler(steps=2, size=512), decode=False))


def _train(folder: Path, method: str) -> float:
    import torch

    from auditor._diffusion.finetune import Examples, Training, finetune

    model = _loaded(_open(folder))
    latents = torch.randn(1, 4, 64, 64)
    examples = Examples(latents, torch.zeros_like(latents), model.condition(["a photo of a cat"]))
    return _timed(lambda: list(finetune(model, examples, Training(method, 1e-5, batch=1), [1], 0)))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:]))
    else:
        print(json.dumps(measure(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))))
