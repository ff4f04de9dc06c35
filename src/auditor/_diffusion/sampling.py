"""Draws images in batches across prompts, concepts and seeds: one generator a sample, so batches cannot
matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from auditor._diffusion.guidance import ClassifierFree
from auditor._diffusion.model import DiffusionModel
from auditor.policy import Sampler

_LATENT_PIXELS_PER_BATCH = 8192  # 2 x 64 x 64: two images at 512 px, 128 at 32 px
_LARGEST_BATCH = 64


def batch_size(model: DiffusionModel, sampler: Sampler) -> int:
    """The number of images drawn at once."""
    if sampler.batch != "auto":
        return sampler.batch
    _, height, width = model.latent_shape(sampler.size)
    return max(1, min(_LARGEST_BATCH, _LATENT_PIXELS_PER_BATCH // (height * width)))


def first_noise(model: DiffusionModel, seeds: Sequence[int], size: int) -> Tensor:
    """The noise that sampling starts from, (N, C, H, W): each from its own CPU generator, whatever the
    batch."""
    shape = model.latent_shape(size)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


Observer = Callable[[int, Tensor], None]


@torch.no_grad()
def draw(
    model: DiffusionModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampler: Sampler,
    on_step: Observer | None = None,
    decode: bool = True,
) -> tuple[Tensor, Tensor]:
    """Draw one image for each (prompt, seed) with classifier-free guidance (Ho & Salimans 2022).

    Returns images (uint8, (N, 3, H, W), CPU) and a bool for each: whether it is finite. ``on_step`` is given
    the timestep and the latents after each denoising step. With ``decode=False`` the first value is the
    latents.
    """
    scheduler = model.family.sampling_scheduler(sampler.scheduler, model.scheduler_config)
    scheduler.set_timesteps(sampler.steps, device=model.device)
    without = model.condition([""]).repeated(len(prompts))
    guide = ClassifierFree(without, model.condition(prompts), sampler.guidance)
    latents = first_noise(model, seeds, sampler.size).to(model.device) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        predicted = guide(model.predict, scheduler.scale_model_input(latents, timestep), timestep)
        latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
        if on_step is not None:
            on_step(int(timestep), latents)
    if not decode:
        return latents, latents.isfinite().flatten(1).all(1).cpu()
    return model.decode(latents)
