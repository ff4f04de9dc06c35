"""Step 2: one call of the denoiser, by batch and form of its weights."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.gpu.setting import Setting
from tests.gpu.walks import PROMPTS

if TYPE_CHECKING:
    from auditor._diffusion.model import DiffusionModel

_WANTED = {4: (10, 45), 32: (40, 130)}
"""Milliseconds that are expected of a call, by latents."""


def run(setting: Setting) -> None:
    """The forms in turn, each at every batch; then what a call is made of."""
    import torch

    model = setting.model()
    with torch.no_grad():
        for form, own in _forms(model):
            for latents in (2, 4, 8, 16, 32, 64)[: setting.few(6)]:
                _time(setting, form, own, latents)
            _kernels(setting, form, own)


def _forms(model: DiffusionModel) -> Iterator[tuple[str, DiffusionModel]]:
    """As it is loaded, with weights in bfloat16, and those in channels_last too."""
    import torch

    yield "as loaded", model
    half = copy.deepcopy(model.denoiser).to(torch.bfloat16)
    own = replace(model, parts=model.parts | {model.family.denoiser: half}, precision=torch.bfloat16)
    yield "weights in bfloat16", own
    half.to(memory_format=torch.channels_last)
    yield "weights in bfloat16, channels_last", own


def inputs(setting: Setting, model: DiffusionModel, latents: int) -> tuple[Any, ...]:
    """Noise, a timestep and prompts for a call with so many latents."""
    import torch

    shape = model.latent_shape(setting.pixels)
    prompts = (PROMPTS * latents)[:latents]
    noise = torch.randn(latents, *shape, device=setting.device)
    return noise, torch.full((latents,), 500, device=setting.device), model.condition(prompts)


def _time(setting: Setting, form: str, model: DiffusionModel, latents: int) -> None:
    given = inputs(setting, model, latents)
    for _ in range(3):
        model.predict(*given)
    setting.wait()
    times = setting.few(10)
    began = time.perf_counter()
    for _ in range(times):
        model.predict(*given)
    launched = 1000 * (time.perf_counter() - began) / times
    setting.wait()
    whole = 1000 * (time.perf_counter() - began) / times
    low, high = _WANTED.get(latents, (5, 300))
    setting.within(f"ms of a call, {latents} latents, {form}", whole, low, high)
    setting.write(f"ms of its launching thread, {latents} latents, {form}", launched)


def _kernels(setting: Setting, form: str, model: DiffusionModel) -> None:
    given = inputs(setting, model, 4)
    found = setting.profiled(lambda: model.predict(*given))
    if found is None:
        setting.write(f"kernels of a call, {form}", None, "counted on a GPU alone")
        return
    kernels, busy = found
    attention = sorted(
        name[:90] for name in kernels if "fmha" in name or "flash" in name or "attention" in name
    )
    setting.within(f"kernels of a call, {form}", sum(kernels.values()), 600, 1700)
    setting.write(f"ms that the GPU is busy in a call of 4 latents, {form}", 1000 * busy)
    setting.write(f"attention, {form}", attention, "flash")
    most = sorted(kernels.items(), key=lambda item: -item[1])[:8]
    setting.write(f"kernels that are launched most, {form}", {name[:70]: count for name, count in most})
