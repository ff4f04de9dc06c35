"""Draws images in batches across prompts, concepts and seeds: one generator a sample, so batches cannot
matter but in the last bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event

import torch
from torch import Tensor

from auditor._diffusion.guidance import ClassifierFree
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.side_by_side import is_small, side_by_side
from auditor.families.family import Condition
from auditor.policy import Sampler

_LATENT_PIXELS_PER_BATCH = 8192  # 2 x 64 x 64: two images at 512 px, 128 at 32 px
_LARGEST_BATCH = 64
_AT_ONCE = 32  # images of a small denoiser that one thread draws together


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
    latents. With a small denoiser a few images at a time are drawn by one thread each
    (:mod:`auditor._diffusion.side_by_side`), unless somebody looks on.
    """
    without, given = model.condition([""]), model.condition(prompts)
    side = on_step is None and is_small(model)
    size = _AT_ONCE if side else max(1, len(prompts))

    def drawn_by(rows: slice) -> Callable[[Event], tuple[Tensor, Tensor]]:
        return lambda stop: _draw(model, without, given[rows], seeds[rows], sampler, on_step, decode, stop)

    pieces = [drawn_by(slice(start, start + size)) for start in range(0, len(prompts), size)]
    drawn = side_by_side(pieces) if side else [piece(Event()) for piece in pieces]
    images, finite = zip(*drawn, strict=True)
    return torch.cat(images), torch.cat(finite)


@torch.no_grad()
def _draw(
    model: DiffusionModel,
    without: Condition,
    given: Condition,
    seeds: Sequence[int],
    sampler: Sampler,
    on_step: Observer | None,
    decode: bool,
    stop: Event,
) -> tuple[Tensor, Tensor]:
    """The same in one batch."""
    scheduler = model.family.sampling_scheduler(sampler.scheduler, model.scheduler_config)
    scheduler.set_timesteps(sampler.steps, device=model.device)
    guide = ClassifierFree(without.repeated(len(seeds)), given, sampler.guidance)
    latents = first_noise(model, seeds, sampler.size).to(model.device) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        if stop.is_set():
            break
        predicted = guide(model.predict, scheduler.scale_model_input(latents, timestep), timestep)
        latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
        if on_step is not None:
            on_step(int(timestep), latents)
    if not decode:
        return latents, latents.isfinite().flatten(1).all(1).cpu()
    return model.decode(latents)
