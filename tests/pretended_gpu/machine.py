"""Cases about the machine: other cards, memory that runs out, what earlier audits left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from auditor._process.device import device_said
from tests.gpu.walks import PROMPTS, SAMPLER, small_policy
from tests.pretended_gpu.cases import images, small_model, small_sampler
from tests.pretended_gpu.device import NO_MEMORY, PretendedGpu, driver_too_old

Found = dict[str, Any]
T4 = {"name": "Tesla T4", "capability": (7, 5), "memory": 15_828_320_256}
CARD_OF_24_GB = 25_386_352_640


def cards(folder: Path) -> Found:
    """A card without bfloat16, a small one, the second of two, and a driver that is too old."""
    from auditor._checkpoint.load import precision_of
    from auditor._diffusion.finetune import Training, saving_memory
    from auditor._diffusion.sampling import draw

    found: Found = {}
    with PretendedGpu(**T4):
        found["T4"] = str(precision_of("auto", torch.device("cuda")))
    with PretendedGpu():
        found["H100"] = str(precision_of("auto", torch.device("cuda")))
        found["said"] = device_said()
    with PretendedGpu(memory=CARD_OF_24_GB):
        model = small_model()
        with saving_memory(model, Training("full", 1e-5)):
            found["24 GB saves memory"] = bool(model.denoiser.is_gradient_checkpointing)
    with PretendedGpu(cards=2) as gpu:
        model = _on_second_card()
        pictures, _ = draw(model, PROMPTS[:2], [1, 2], small_sampler())
        found["second card"] = [len(pictures), gpu.memory[0].peak, gpu.memory[1].peak]
    with driver_too_old():
        found["old driver"] = device_said()
    return found


def _on_second_card() -> Any:
    from auditor._checkpoint import open_checkpoint
    from auditor._checkpoint.load import load_model

    return load_model(open_checkpoint("micro"), device=torch.device("cuda", 1))


def no_memory(folder: Path) -> Found:
    """What goes on, with fewer rows at once, where no more than two fit."""
    from auditor._diffusion.drawing import is_out_of_memory
    from auditor._diffusion.finetune import Examples, Training, denoising_losses, finetune

    found: Found = {"known": {name: is_out_of_memory(error) for name, error in NO_MEMORY.items()}}
    with PretendedGpu() as gpu:
        model = small_model()
        examples = Examples.of(model, images(4), PROMPTS[:4])
        walks: dict[str, Callable[[], object]] = {
            "encoding": lambda: model.encode(images(8)),
            "held-out loss": lambda: denoising_losses(model, examples, 0),
            "training": lambda: list(finetune(model, examples, Training("lora", 1e-4), [1], 0)),
        }
        for name, walk in walks.items():
            with gpu.without_memory("convolution", above=2):
                found[name] = _said(walk)
    return found


def _said(action: Callable[[], object]) -> str | None:
    """The first line of what is raised; None where all is well."""
    try:
        action()
    except (RuntimeError, MemoryError, TypeError) as error:
        return str(error).splitlines()[0]
    return None


def refused(folder: Path) -> Found:
    """What the pretended device itself refuses, and what it counts as a wait."""
    with PretendedGpu(cards=2) as gpu:
        first, second, host = torch.ones(4, device="cuda"), torch.ones(4, device="cuda:1"), torch.ones(4)
        numbers = torch.Generator().manual_seed(0)
        walks: dict[str, Callable[[], object]] = {
            "GPU and CPU": lambda: first + host,
            "two GPUs": lambda: first + second,
            "a generator of the CPU's": lambda: torch.randn(4, device="cuda", generator=numbers),
            "an index on the GPU": lambda: host[first.long()],
            "numpy": first.numpy,
            "a number of the CPU's": lambda: first + torch.tensor(2.0),
            "another GPU, on purpose": lambda: first.to("cuda:1") + second,
        }
        said = {name: _said(walk) for name, walk in walks.items()}
        pinned = host.pin_memory()
        moves: dict[str, Callable[[], object]] = {
            "item": first.sum().item,
            "to the CPU": first.cpu,
            "from the CPU": lambda: host.to("cuda"),
            "from the CPU, not waiting": lambda: host.to("cuda", non_blocking=True),
            "from pinned memory, not waiting": lambda: pinned[1:].to("cuda", non_blocking=True),
            "into a tensor from pinned memory": lambda: first.copy_(pinned, non_blocking=True),
            "by a mask": lambda: first[first > 0],
            "arithmetic": lambda: (first * 2).sum(),
        }
        waits = {name: gpu.waited(move) for name, move in moves.items()}
    with PretendedGpu(memory=2**30, shapes=True, strict=True):
        full = _said(lambda: torch.empty(2**31, dtype=torch.uint8, device="cuda"))
    return {"said": said, "waits": waits, "full": full}


def cache(folder: Path) -> Found:
    """How many calls of the denoiser four pictures of the base cost: the first time, once more, in other
    batches, on another card, in another precision."""
    found: Found = {}
    kinds = {
        "first": ({}, {}),
        "again": ({}, {}),
        "other batches": ({"batch": 2}, {}),
        "other card": ({}, {"name": "Another GPU"}),
        "other precision": ({"dtype": "float32"}, {}),
    }
    for name, (sampler, card) in kinds.items():
        with PretendedGpu(**card):
            found[name] = _calls_for_the_base(folder / name, folder / "cache", **{"batch": 4} | sampler)
    return found


def _calls_for_the_base(folder: Path, cache: Path, **sampler: Any) -> int:
    from auditor._audit.cells import Seeds
    from auditor._audit.evidence.counts import tally
    from auditor._audit.plan import make_plan
    from auditor._audit.progress import Progress
    from auditor._audit.run.drawing import Drawing
    from auditor._audit.run.recorder import Deadline, Recorder
    from auditor._journal.file import Journal
    from auditor.plugin._observers import Observers
    from auditor.plugin.instruments import make_instruments

    policy = small_policy(sampler=SAMPLER | {"steps": 2} | sampler)
    instruments = make_instruments(policy)
    plan = make_plan(policy, instruments)
    folder.mkdir()
    with Journal(folder / "journal.jsonl") as journal:
        counted = tally(plan, Seeds("audit", "shared"), [])
        record = Recorder(journal, counted, Observers(), Progress(), "0" * 64, "bfloat16", resumed=False)
        drawing = Drawing(plan, instruments, small_model(), folder, cache, record, Deadline(None, 0.0))
        drawing.base_examples(PROMPTS[:4], [1, 2, 3, 4])
    return drawing.calls


CASES = (cards, no_memory, refused, cache)
