"""Walks through the product on a pretended GPU, in a process of their own: what autograd knows of a device
cannot be taken back.

``python -m tests.pretended_gpu -m tests.pretended_gpu.cases FOLDER drawing shapes,sd21`` writes what was
found into ``FOLDER/drawing.json`` and ``FOLDER/shapes,sd21.json``.
"""

from __future__ import annotations

import gc
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.gpu.walks import PROMPTS, SAMPLER, small_policy
from tests.pretended_gpu.device import GIB, PretendedGpu
from tests.pretended_gpu.looking import Steps, calls_of

Found = dict[str, Any]


def small_model() -> Any:
    """The small world's base, where torch says that models go."""
    from auditor._checkpoint import open_checkpoint
    from auditor._checkpoint.load import load_model

    return load_model(open_checkpoint("micro"))


def images(count: int, size: int = 32) -> torch.Tensor:
    """Pictures of noise."""
    return torch.randint(0, 255, (count, 3, size, size), dtype=torch.uint8)


def small_sampler(**changes: Any) -> Any:
    """Few steps at the small world's size."""
    from auditor.policy import Sampler

    return Sampler.model_validate(SAMPLER | changes)


def drawing(folder: Path) -> Found:
    """Waits of both samplers; how many rows text encoder and denoiser are called with."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

    from auditor._diffusion.sampling import draw

    found: Found = {}
    with PretendedGpu() as gpu:
        model = small_model()
        model.condition(["", *PROMPTS])
        for scheduler in ("dpm-solver++", "ddim"):
            for steps in (2, 4):
                sampler = small_sampler(scheduler=scheduler, steps=steps)
                waits = gpu.waited(lambda how=sampler: draw(model, PROMPTS[:2], [1, 2], how))
                found.setdefault(scheduler, {})[str(steps)] = waits
        model.forget_text_states()
        with calls_of(CLIPTextModel, gpu) as texts:
            for count in (1, 3, 5):
                model.condition([f"{count} {prompt}" for prompt in PROMPTS[:count]])
        with calls_of(UNet2DConditionModel, gpu) as denoised:
            for count in (1, 3, 4):
                draw(model, PROMPTS[:count], list(range(count)), small_sampler(batch=4, steps=1))
    found["rows of texts"] = sorted({call.rows for call in texts})
    found["rows of the denoiser"] = sorted({call.rows for call in denoised})
    return found


def training(folder: Path) -> Found:
    """Waits of a step of everything that trains."""
    found: Found = {}
    with PretendedGpu() as gpu:
        model = small_model()
        for name, walk in (("fine-tuning", _finetuning), ("together", _together), ("mace", _mace_loras)):
            found[name] = walk(gpu, model)
        found["textual inversion"] = _textual_inversion(gpu, model)
        found["esd"] = _esd(gpu)
    return found


def _examples(model: Any) -> Any:
    from auditor._diffusion.finetune import Examples

    return Examples.of(model, images(4), PROMPTS[:4])


def _finetuning(gpu: PretendedGpu, model: Any) -> Found:
    from auditor._diffusion.finetune import Training, finetune

    examples, found = _examples(model), {}
    for name, kept in (("lora", False), ("full", False), ("full, checkpointed", True)):
        steps = Steps(gpu)
        training = Training(name.split(",")[0], 1e-4, checkpointing=kept)
        list(finetune(model, examples, training, [2], 0, steps))
        found[name] = steps.each
    return found


def _together(gpu: PretendedGpu, model: Any) -> int:
    """No step is told of: a pass of three is compared with one of one."""
    import threading

    from auditor._diffusion.finetune import Training
    from auditor._diffusion.together import Member, Together

    examples, waits = _examples(model), []
    for steps in (1, 3):
        members = [Member(examples, Training("lora", 1e-4), (steps,), seed) for seed in (1, 2)]
        together = Together(model, members)
        waits.append(gpu.waited(lambda each=together: each.train(threading.Event())))
    return (waits[1] - waits[0]) // 2


def _mace_loras(gpu: PretendedGpu, model: Any) -> int:
    from auditor.builtins.erasers.mace.lora import ConceptImages, LoraSetting, LoraTask, train_loras

    latents = torch.randn(2, *model.latent_shape(32))
    states = model.text_states(PROMPTS[:2])
    marked = torch.zeros(states.shape[:2], dtype=torch.bool)
    marked[:, 2] = True
    marked = marked.to(states.device)
    pictures = ConceptImages(latents.to(model.device), torch.ones(2, *latents.shape[2:], device=model.device))
    steps = Steps(gpu)
    setting = LoraSetting(steps=2, learning_rate=1e-3, rank=1, batch=2, importance_sampling=True)
    train_loras(model, [LoraTask(pictures, states, marked, seed) for seed in (1, 2)], setting, steps)
    return steps.each


def _textual_inversion(gpu: PretendedGpu, model: Any) -> int:
    from auditor.plugin import Update
    from auditor_updates import TextualInversion

    probe = TextualInversion(TextualInversion.Options.model_validate({"token": "sticker", "batch": 2}))
    steps, captions = Steps(gpu), tuple(f"a sticker of {name}" for name in ("a dog", "a horse"))
    list(probe.update(Update(model, images(2), captions, "", (2,), 0, on_step=steps)))
    model.forget_text_states()
    return steps.each


def _esd(gpu: PretendedGpu) -> int:
    from auditor.builtins.erasers.esd import Esd
    from auditor.plugin.contracts import Erasure

    policy, steps = small_policy(), Steps(gpu)
    options = {"steps": 2, "sampling_steps": 2, "size": 32, "batch": 2, "pool": 2, "refresh": 100}
    esd = Esd(Esd.Options.model_validate(options))
    esd.erase(Erasure(small_model(), tuple(policy.erase), tuple(policy.retain), 0, on_step=steps))
    return steps.each


def shapes(folder: Path, family: str = "sd1") -> Found:
    """A model of true shape by the product's own defaults: bytes of every phase, operations of a call."""
    from diffusers import UNet2DConditionModel

    from auditor._diffusion.finetune import Examples, Training, denoising_losses, finetune
    from auditor._diffusion.sampling import batch_size, draw
    from tests.gpu.models import SHAPES, random_model

    size, found = SHAPES[family]["pixels"], dict[str, Any]()
    with PretendedGpu(shapes=True) as gpu:

        def peak(phase: str, action: Callable[[], object]) -> None:
            found.setdefault("peaks", {})[phase] = gpu.peak_of(action)

        gpu.memory[0].begin()
        model = random_model(family, torch.device("cuda", 0))
        found["peaks"] = {"load": gpu.memory[0].bytes}
        sampler = small_sampler(steps=3, size=size)
        batch = batch_size(model, sampler)
        prompts, seeds = (PROMPTS * batch)[:batch], list(range(batch))
        with calls_of(UNet2DConditionModel, gpu) as drawn:
            peak("draw", lambda: draw(model, prompts, seeds, sampler, decode=False))
        latents = torch.zeros(batch, *model.latent_shape(size)).to(model.device)
        peak("decode", lambda: model.decode(latents))
        peak("encode", lambda: model.encode(torch.zeros(200, 3, size, size, dtype=torch.uint8)))
        few = torch.zeros(10, 3, size, size, dtype=torch.uint8)
        examples = Examples.of(model, few, (PROMPTS * 2)[:10])
        peak("held-out loss", lambda: denoising_losses(model, examples, 0))
        for method in ("lora", "full"):
            train = Training(method, 1e-5)
            steps = 1 if method == "lora" else 2  # a full step's moments are there from the second on
            peak(f"{method} step", lambda how=train, n=steps: list(finetune(model, examples, how, [n], 0)))
    last = drawn[-1]
    return found | {
        "batch": batch,
        "rows": last.rows,
        "operations": last.operations,
        "casts": last.casts,
        "attention": dict(gpu.attention),
    }


def fits(folder: Path, family: str = "sd1") -> Found:
    """In what memory runs out on cards of several sizes (GB as they are sold) that hold base, erased model
    and a copy of the denoiser for a model state; by the defaults of the product itself."""
    from auditor._diffusion.finetune import Examples, Training, denoising_losses, finetune
    from auditor._diffusion.original import Original
    from auditor._diffusion.sampling import batch_size, draw
    from tests.gpu.models import SHAPES, random_model

    size, found = SHAPES[family]["pixels"], dict[str, list[str]]()
    with PretendedGpu(shapes=True, strict=True) as gpu:
        base, erased = (random_model(family, torch.device("cuda", 0)) for _ in range(2))
        sampler, prompts = small_sampler(steps=2, size=size), PROMPTS * 20
        training = torch.zeros(64, 3, size, size, dtype=torch.uint8)
        latents = torch.zeros(10, *base.latent_shape(size)).to(base.device)
        examples = Examples(latents, latents, base.condition((PROMPTS * 2)[:10]))

        def trained(method: str) -> None:
            own = Original(erased).copy([erased.family.denoiser])
            list(finetune(own, examples, Training(method, 1e-5), [2], 0))

        def drawn() -> None:
            batch = batch_size(base, sampler)
            draw(base, prompts[:batch], list(range(batch)), sampler)

        walks: dict[str, Callable[[], object]] = {
            "drawing": drawn,
            "encoding": lambda: base.encode(training),
            "held-out loss": lambda: denoising_losses(base, examples, 0),
            "lora": lambda: trained("lora"),
            "full": lambda: trained("full"),
        }
        for card in CARDS:
            gpu.memory[0].size = card * GIB - RESERVED
            found[str(card)] = [name for name, walk in walks.items() if not _goes(walk)]
    return found


CARDS = (8, 12, 16, 24, 48, 80)
RESERVED = GIB
"""Taken by the driver's context, workspaces and what is fragmented: a guess."""


def _goes(action: Callable[[], object]) -> bool:
    try:
        action()
    except torch.OutOfMemoryError:
        return False
    finally:
        gc.collect()
    return True


def main() -> None:
    """Run cases and write what each found into the folder, or why it broke."""
    from tests.pretended_gpu import machine, whole

    known = {walk.__name__: walk for walk in (drawing, training, shapes, fits, *machine.CASES, *whole.CASES)}
    folder, *asked = sys.argv[1:]
    for each in asked:
        case, *more = each.split(",")
        place = Path(folder) / each
        place.mkdir()
        try:
            found = known[case](place, *more)
        except Exception:  # noqa: BLE001 - the test that asks says it, and the other cases go on
            found = {"broke": traceback.format_exc()}
        Path(folder, f"{each}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
