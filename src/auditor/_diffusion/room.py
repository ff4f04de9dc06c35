"""Room on a small card while a model is trained: the models that nobody asks meanwhile wait on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from auditor._diffusion.memory import free_memory
from auditor._diffusion.model import DiffusionModel

_ACTIVATIONS = 4 * 2**30  # bytes; of a training step with four images of 512 px, and some to spare
_FULL = 3  # gradients and AdamW's two moments, each as large as the weights


def free_bytes(device: torch.device) -> int:
    """What can still be taken of a GPU's memory: what the driver has, and what torch keeps for later."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def training_takes(model: DiffusionModel, method: str) -> int:
    """About what training ``model``'s denoiser by ``method`` takes beside its weights, in bytes."""
    weights = sum(each.numel() * each.element_size() for each in model.denoiser.parameters())
    return _ACTIVATIONS + (_FULL * weights if method == "full" else 0)


@contextmanager
def room_for_training(model: DiffusionModel, method: str, others: Sequence[DiffusionModel]) -> Iterator[None]:
    """While open, the weights of ``others`` lie on the CPU where the GPU has no room for training ``model``
    beside them, and nobody may ask them for anything; afterwards they are where they were."""
    device = model.device
    if device.type != "cuda" or free_bytes(device) >= training_takes(model, method):
        yield
        return
    waiting = {id(part): part for other in others for part in other.modules.values()}
    try:
        for part in waiting.values():
            part.to("cpu")
        free_memory()
        yield
    finally:
        for part in waiting.values():
            part.to(device)
