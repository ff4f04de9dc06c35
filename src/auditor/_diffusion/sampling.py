"""Draws images in batches across prompts, concepts and seeds: one generator a sample, so batches cannot
matter but in the last bits.

On a GPU those bits hang on how many rows are computed together. There every call of the denoiser has the same
number of rows: a batch that is too short is filled up, and what was too much thrown away.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from threading import Event

import torch
from torch import Tensor

from auditor._diffusion.at_once import drawn_at_once
from auditor._diffusion.guidance import ClassifierFree
from auditor._diffusion.half import half_weights
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.side_by_side import is_small, side_by_side
from auditor._process.device import device_memory
from auditor.errors import UsageError
from auditor.families.family import Condition
from auditor.policy import Sampler

_COMPILERS = ("c++", "g++", "clang++")
_AT_ONCE = 32  # images of a small denoiser that one thread draws together


def batch_size(model: DiffusionModel, sampler: Sampler) -> int:
    """The number of images drawn at once."""
    if sampler.batch != "auto":
        return sampler.batch
    _, height, width = model.latent_shape(sampler.size)
    return drawn_at_once(height * width, device_memory() if model.on_gpu else None)


def first_noise(model: DiffusionModel, seeds: Sequence[int], size: int) -> Tensor:
    """The noise that sampling starts from, (N, C, H, W): each from its own CPU generator, whatever the
    batch."""
    shape = model.latent_shape(size)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


Observer = Callable[[int, Tensor], None]


@dataclass(frozen=True)
class _Way:
    """How one call draws."""

    sampler: Sampler
    on_step: Observer | None
    decode: bool

    def is_guided(self, step: int) -> bool:
        """Is the step with this number, from 0, within the sampler's ``guidance_interval``?"""
        start, stop = (int(share * self.sampler.steps) for share in self.sampler.guidance_interval)
        return start <= step < stop


def draw(
    model: DiffusionModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampler: Sampler,
    on_step: Observer | None = None,
    decode: bool = True,
    rows: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw one image for each (prompt, seed) with classifier-free guidance (Ho & Salimans 2022).

    Returns images (uint8, (N, 3, H, W), CPU) and a bool for each: whether it is finite. ``on_step`` is given
    the timestep and the latents after each denoising step. With ``decode=False`` the first value is the
    latents. Unless somebody looks on, a GPU draws exactly ``rows`` images at once (None:
    :func:`batch_size`), and a small denoiser on a CPU a few at a time, by one thread each
    (:mod:`auditor._diffusion.side_by_side`).
    """
    without, given = model.condition([""]), model.condition(prompts)
    way, alone = _Way(sampler, on_step, decode), on_step is None
    side = alone and is_small(model) and not sampler.compile
    size = _AT_ONCE if side else max(1, len(prompts))
    if alone and model.on_gpu:
        size = rows or batch_size(model, sampler)

    def drawn_by(start: int) -> Callable[[Event], tuple[Tensor, Tensor]]:
        some = slice(start, start + size)
        return lambda stop: _filled(model, without, given[some], seeds[some], way, size, stop)

    pieces = [drawn_by(start) for start in range(0, len(prompts), size)]
    if side:
        drawn = side_by_side(pieces)
    else:
        with _compiled(model) if sampler.compile and alone else nullcontext():
            drawn = [piece(Event()) for piece in pieces]
    images, finite = zip(*drawn, strict=True)
    return torch.cat(images), torch.cat(finite)


def _filled(
    model: DiffusionModel,
    without: Condition,
    given: Condition,
    seeds: Sequence[int],
    way: _Way,
    size: int,
    stop: Event,
) -> tuple[Tensor, Tensor]:
    """Draw a batch, on a GPU filled up to ``size`` rows by its last one."""
    count = len(seeds)
    missing = size - count if model.on_gpu and way.on_step is None else 0
    if missing > 0:
        given = Condition.joined(given, given[slice(count - 1, count)].repeated(missing))
        seeds = [*seeds, *[seeds[-1]] * missing]
    images, finite = _draw(model, without, given, seeds, way, stop)
    return images[:count], finite[:count]


@torch.no_grad()
def _draw(
    model: DiffusionModel,
    without: Condition,
    given: Condition,
    seeds: Sequence[int],
    way: _Way,
    stop: Event,
) -> tuple[Tensor, Tensor]:
    """The same in one batch."""
    sampler = way.sampler
    scheduler = model.family.sampling_scheduler(sampler.scheduler, model.scheduler_config)
    scheduler.set_timesteps(sampler.steps, device=torch.device("cpu"))  # its tables lie there
    times = scheduler.timesteps.to(model.device)
    guide = ClassifierFree(without.repeated(len(seeds)), given, sampler.guidance)
    latents = first_noise(model, seeds, sampler.size).to(model.device) * scheduler.init_noise_sigma
    half = way.on_step is None and model.on_gpu and model.precision is not torch.float32
    with half_weights(model.denoiser, model.precision) if half else nullcontext():
        predict = model.predict_in_half if half else model.predict
        for step, timestep in enumerate(scheduler.timesteps):
            if stop.is_set():
                break
            scaled = scheduler.scale_model_input(latents, timestep)
            guided = guide(predict, scaled, times[step], guided=way.is_guided(step))
            latents = scheduler.step(guided, timestep, latents, return_dict=False)[0]
            if way.on_step is not None:
                way.on_step(int(timestep), latents)
    if not way.decode:
        return latents, latents.isfinite().flatten(1).all(1).cpu()
    return model.decode(latents)


@contextmanager
def _compiled(model: DiffusionModel) -> Iterator[None]:
    """While open, the denoiser is called as ``torch.compile`` made it for the shapes that it meets. Raises
    :class:`UsageError` where there is no compiler."""
    if not any(map(shutil.which, _COMPILERS)):
        raise UsageError(
            "sampler.compile needs a C++ compiler, and none is installed: install g++, or leave it out."
        )
    denoiser = model.denoiser
    denoiser.compile(dynamic=False)
    try:
        yield
    finally:
        denoiser._compiled_call_impl = None
