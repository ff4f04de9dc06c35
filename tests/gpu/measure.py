"""What a GPU does with Stable Diffusion's true shape: seconds a training step and an image, memory, and
arithmetic beside a matmul's.

``make gpu`` runs it where there is a GPU; weights are random, so nothing is downloaded.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._diffusion.finetune import Examples, Training, finetune
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.sampling import draw
from auditor._files.safetensors_header import read_header
from auditor.families.stable_diffusion.flops import denoiser_flops
from auditor.policy import Sampler
from tests.science.true_size import make

_STEPS = 20
_BATCH = 4


def seconds(action: Callable[[], object]) -> float:
    """The time of one call, the GPU's work included."""
    torch.cuda.synchronize()
    began = time.monotonic()
    action()
    torch.cuda.synchronize()
    return time.monotonic() - began


def matmul_tflops(side: int = 8192) -> float:
    """What a large bfloat16 product reaches here."""
    one = torch.randn(side, side, device="cuda", dtype=torch.bfloat16)
    one @ one
    return 10 * 2 * side**3 / seconds(lambda: [one @ one for _ in range(10)]) / 1e12


def train(model: DiffusionModel, method: str) -> float:
    """Seconds a step of ``method`` at batch 4 and 512 pixels."""
    latents = torch.randn(_BATCH, 4, 64, 64, device="cuda")
    examples = Examples(latents, torch.zeros_like(latents), model.condition(["a photo of a cat"] * _BATCH))
    for _ in finetune(model, examples, Training(method, 1e-5, batch=_BATCH), [3], 0):
        pass
    return (
        seconds(lambda: list(finetune(model, examples, Training(method, 1e-5, batch=_BATCH), [_STEPS], 0)))
        / _STEPS
    )


def main() -> None:
    """Print one row a measurement."""
    if not torch.cuda.is_available():
        raise SystemExit("There is no GPU here.")
    limit = matmul_tflops()
    print(f"{torch.cuda.get_device_name()}: {limit:.0f} TFLOP/s in a bfloat16 product of 8192 x 8192")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "sd1"
        make(folder, "sd1")
        model = load_model(open_checkpoint(str(folder)))
        shapes = read_header(folder / "unet" / "diffusion_pytorch_model.safetensors").shapes
        once = denoiser_flops(json.loads((folder / "unet" / "config.json").read_text()), shapes, 64, 77)
        for compiled in (False, True):
            for scheduler, steps in (("ddim", 50), ("dpm-solver++", 25)):
                sampler = Sampler.model_validate({"scheduler": scheduler, "steps": steps})
                eager = model.denoiser
                if compiled:
                    model.parts["unet"] = torch.compile(eager)
                for batch in (1, 8):
                    prompts, seeds = ["a photo of a cat"] * batch, list(range(batch))
                    draw(model, prompts, seeds, sampler)
                    torch.cuda.reset_peak_memory_stats()
                    each = seconds(lambda p=prompts, s=seeds, how=sampler: draw(model, p, s, how)) / batch  # type: ignore[misc]
                    rate, peak = steps * 2 * once / each / 1e12, torch.cuda.max_memory_allocated() / 2**30
                    name = f"{scheduler} {steps}, batch {batch}, {'compiled' if compiled else 'eager'}"
                    print(
                        f"{name}: {each:.2f} s an image, {peak:.1f} GiB, {rate:.0f} TFLOP/s "
                        f"({rate / limit:.0%})"
                    )
                model.parts["unet"] = eager
        for method in ("lora", "full"):
            torch.cuda.reset_peak_memory_stats()
            each = train(model, method)
            rate, peak = 3 * _BATCH * once / each / 1e12, torch.cuda.max_memory_allocated() / 2**30
            print(
                f"{method}, batch {_BATCH}: {each:.2f} s a step, {peak:.1f} GiB, {rate:.0f} TFLOP/s "
                f"({rate / limit:.0%})"
            )


if __name__ == "__main__":
    main()
