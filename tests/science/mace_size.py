"""MACE at Stable Diffusion's true shape with random weights, one step in a process of its own; run as a
script.

``python -m tests.science.mace_size STEP FOLDER WORK`` prints seconds, CPU seconds and peak memory as JSON.
FOLDER is a checkpoint that ``true_size make`` wrote.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("Ana Example", "Bo Example")
QUICK: dict[str, Any] = {
    "lambda_identity": 10.0,
    "images": 1,
    "sampling_steps": 2,
    "size": 64,
    "steps": 2,
    "learning_rate": 1e-3,
    "memory_gib": 4.0,
}


def policy(*names: str) -> Any:
    """Names to erase, one to keep."""
    from tests.conftest import short_policy

    people = [
        {"name": name, "domain": "people", "mapping": "a person", "prompts": ["a portrait of {}"]}
        for name in names
    ]
    return short_policy(
        erase=people, retain=[{"name": "Cleo Example", "domain": "people", "prompts": ["a portrait of {}"]}]
    )


def erase_step(folder: Path, work: Path) -> Callable[[], object]:
    """One training step of one concept, 64 x 64 latents, as the eraser does it."""
    import torch

    from auditor.builtins.erasers.mace.lora import ConceptImages, LoraSetting, LoraTask, train_loras

    model = _model(folder)
    latents, masks = torch.randn(1, 4, 64, 64), torch.ones(1, 64, 64)
    states = model.text_states(["a photo of Ana Example"])
    task = LoraTask(ConceptImages(latents, masks), states, torch.ones(1, states.shape[1]), seed=1)
    return lambda: train_loras(model, [task], LoraSetting(1, 1e-4, 1, 1, importance_sampling=True))


def explicit_step(folder: Path, work: Path) -> Callable[[], object]:
    """The same with explicit attention everywhere and LoRA on all 128 projections, of which keys and
    values of attn2 are trained."""
    import torch
    from peft import LoraConfig

    from auditor.builtins.erasers.mace.attention import attention_losses

    model = _model(folder)
    unet, maps = model.unet, list[torch.Tensor]()
    unet.add_adapter(
        LoraConfig(
            r=1,
            lora_alpha=1,
            init_lora_weights="gaussian",
            target_modules=["to_q", "to_k", "to_v", "to_out.0"],
        )
    )

    def attend(
        attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, attention_mask: Any = None
    ) -> Any:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            each.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for each in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        shares = (query @ key.transpose(-1, -2) * attn.scale).softmax(dim=-1)
        if encoder_hidden_states is not None:
            maps.append(shares)
        return attn.to_out[0]((shares @ value).transpose(1, 2).flatten(-2))

    unet.set_attn_processor(dict.fromkeys(unet.attn_processors, attend))
    parameters = [
        value
        for name, value in unet.named_parameters()
        if ".attn2." in name and ("to_k.lora" in name or "to_v.lora" in name)
    ]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    latents, states = torch.randn(1, 4, 64, 64), model.text_states(["a photo of Ana Example"])

    def step() -> None:
        unet(latents, torch.tensor([300]), states)
        attention_losses(maps, torch.ones(1, 64, 64), torch.ones(1, states.shape[1])).sum().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


def hundred_concepts(folder: Path, work: Path) -> Callable[[], object]:
    """Both closed forms of 100 concepts x 30 prompts on SD 1.x' layers: Gram matrices of given states, to
    disk and from it."""
    import torch

    from auditor._diffusion.closed_form import LowRank, cross_gram, fuse, gram, refinement
    from auditor.builtins.erasers.mace.kept import ConceptFolder, lora_of, lora_tensors

    weights = sd1_projections()
    generator = torch.Generator().manual_seed(0)
    prior = 1e-3 * gram(torch.randn(2000, 768, generator=generator))

    def run() -> None:
        mapping, aligned = (
            torch.zeros(768, 768, dtype=torch.float64),
            torch.zeros(768, 768, dtype=torch.float64),
        )
        places = [ConceptFolder(work, f"concept {number}") for number in range(100)]
        for place in places:
            old, new = torch.randn(2, 30 * 77, 768, generator=generator)
            grams = {
                "own": gram(old),
                "mapping": cross_gram(new[:-60], old[:-60]),
                "aligned": gram(old[:-60]),
            }
            mapping, aligned = mapping + grams["mapping"], aligned + grams["aligned"]
            place.save("grams", grams, {})
            lora = {
                name: LowRank(
                    torch.randn(len(w), 1, generator=generator), torch.randn(1, 768, generator=generator)
                )
                for name, w in weights.items()
            }
            place.save("loras", lora_tensors(lora), {})
        factor = refinement(mapping, aligned, prior, 10.0).factor

        def kept() -> Any:
            for place in places:
                grams, lora = place.load("grams"), place.load("loras")
                assert grams is not None and lora is not None
                yield grams[0]["own"], lora_of(lora[0])

        fusion = fuse(factor, kept(), prior, 10.0)
        for name, weight in weights.items():
            weight.copy_(fusion.fused(name, weight))

    return run


def whole(folder: Path, work: Path) -> Callable[[], object]:
    """Two concepts through the whole eraser, few steps; written as a folder."""
    from auditor._erase.erase import erase

    return lambda: erase(str(folder), policy(*NAMES), "mace", work / f"erased-{folder.name}", options=QUICK)


def sd1_projections() -> dict[str, Any]:
    """Random keys and values of Stable Diffusion 1.x' sixteen cross-attentions (mace.md, section 0)."""
    import torch

    generator = torch.Generator().manual_seed(1)
    widths = (320, 320, 640, 640, 1280, 1280, 1280, 1280, 1280, 640, 640, 640, 320, 320, 320, 1280)
    return {
        f"layer{number}.attn2.to_{kind}": torch.randn(width, 768, generator=generator) * 0.02
        for kind in "kv"
        for number, width in enumerate(widths)
    }


def _model(folder: Path) -> Any:
    from auditor._checkpoint import open_checkpoint
    from auditor._checkpoint.load import load_model
    from auditor._process.device import best_device

    return load_model(open_checkpoint(str(folder)), "float32", best_device())


STEPS: dict[str, Callable[[Path, Path], Callable[[], object]]] = {
    "one erase step": erase_step,
    "one erase step, explicit attention, 128 LoRAs": explicit_step,
    "closed forms of 100 concepts": hundred_concepts,
    "whole erasure": whole,
}


def measure(step: str, folder: Path, work: Path) -> dict[str, float]:
    """Do one step and say how long it took, how much CPU time, and how much memory the process held at
    most and before it."""
    action = STEPS[step](folder, work)
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.monotonic()
    action()
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_gib": after.ru_maxrss / 2**20,
        "before_gib": before.ru_maxrss / 2**20,
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))
