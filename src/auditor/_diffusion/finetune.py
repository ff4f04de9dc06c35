"""Ordinary fine-tuning, as in diffusers' text-to-image examples: noise prediction on captioned images, UNet
only.

LoRA: Hu et al. 2021 on the attention projections (to_q, to_k, to_v, to_out.0), initialised as peft's
``gaussian``. Latents and text states are computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn import functional

from auditor._diffusion.model import DiffusionModel
from auditor.errors import UsageError

_ROOMY = 24 * 10**9
ATTENTION_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True)
class Examples:
    """What a denoiser trains on: latent means and deviations (N, C, H, W) and text states (N, tokens,
    width)."""

    means: Tensor
    deviations: Tensor
    states: Tensor

    @classmethod
    def of(cls, model: DiffusionModel, images: Tensor, captions: Sequence[str]) -> Examples:
        """Encode ``images`` (uint8, (N, 3, H, W)) and ``captions`` once."""
        return cls(*model.encode(images), model.text_states(captions))

    def __len__(self) -> int:
        return len(self.means)


@dataclass(frozen=True)
class Training:
    """How to fine-tune: ``method`` is ``lora`` or ``full``; batch in images; learning rate of AdamW,
    constant."""

    method: str
    learning_rate: float
    batch: int = 4
    rank: int = 4
    weight_decay: float = 0.01
    eight_bit: bool = False
    """Adam's moments in eight bits (bitsandbytes)."""
    checkpointing: bool | None = None
    """Compute activations again instead of keeping them; None: on GPUs of less than 24 GB."""


def target(scheduler: DDPMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the UNet is trained to predict: the noise, or the velocity of Salimans & Ho 2022."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        velocity: Tensor = scheduler.get_velocity(latents, noise, timesteps)
        return velocity
    raise ValueError(f"prediction type {kind!r} cannot be trained")


def finetune(
    model: DiffusionModel,
    examples: Examples,
    training: Training,
    doses: Sequence[int],
    seed: int,
    on_step: Callable[[int], None] = lambda step: None,
) -> Iterator[int]:
    """Train ``model.unet`` in place and yield each of ``doses`` (steps, rising) when it is reached.

    Every step draws from its own CPU generator, seeded by (seed, step). When the iterator is exhausted or
    closed a LoRA has been removed again; a full fine-tune stays.
    """
    unet, device = model.unet, model.device
    scheduler = DDPMScheduler.from_config(dict(model.scheduler_config))
    with _trainable(unet, training, seed) as parameters:
        optimizer = _optimizer(parameters, training, device)
        for step in range(1, doses[-1] + 1):
            generator = torch.Generator().manual_seed((seed + step * 0x9E3779B97F4A7C15) & 0x7FFFFFFFFFFFFFFF)
            index = torch.randint(len(examples), (training.batch,), generator=generator).to(device)
            noise, jitter = torch.randn(
                (2, training.batch, *examples.means.shape[1:]), generator=generator
            ).to(device)
            timesteps = torch.randint(
                scheduler.config.num_train_timesteps, (training.batch,), generator=generator
            ).to(device)
            latents = examples.means[index] + examples.deviations[index] * jitter
            noisy = scheduler.add_noise(latents, noise, timesteps)
            with model.autocast(training=True):
                predicted = unet(noisy, timesteps, examples.states[index], return_dict=False)[0]
            functional.mse_loss(predicted.float(), target(scheduler, latents, noise, timesteps)).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            on_step(step)
            if step in doses:
                unet.eval()
                yield step
                unet.train()


@contextmanager
def _trainable(unet: UNet2DConditionModel, training: Training, seed: int) -> Iterator[list[nn.Parameter]]:
    """The parameters to train, with gradients on; afterwards off again and a LoRA removed."""
    unet.requires_grad_(False)
    if _saves_memory(training, unet.device):
        unet.enable_gradient_checkpointing()
    if training.method == "lora":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            config = LoraConfig(
                r=training.rank,
                lora_alpha=training.rank,
                init_lora_weights="gaussian",
                target_modules=list(ATTENTION_PROJECTIONS),
            )
            unet.add_adapter(config, adapter_name="probe")
        parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    else:
        parameters = list(unet.requires_grad_(True).parameters())
    unet.train()
    try:
        yield parameters
    finally:
        unet.eval().requires_grad_(False)
        unet.disable_gradient_checkpointing()
        if training.method == "lora":
            unet.unload_lora()


def _saves_memory(training: Training, device: torch.device) -> bool:
    if training.checkpointing is not None:
        return training.checkpointing
    return device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory < _ROOMY


def _optimizer(
    parameters: list[nn.Parameter], training: Training, device: torch.device
) -> torch.optim.Optimizer:
    rate, decay = training.learning_rate, training.weight_decay
    if not training.eight_bit:
        return torch.optim.AdamW(
            parameters, lr=rate, weight_decay=decay, fused=device.type in ("cpu", "cuda")
        )
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise UsageError(
            "The option eight_bit needs bitsandbytes: pip install 'auditor[eight-bit]'."
        ) from error
    optimizer: torch.optim.Optimizer = AdamW8bit(parameters, lr=rate, weight_decay=decay)
    return optimizer


@torch.no_grad()
def denoising_losses(
    model: DiffusionModel, examples: Examples, seed: int, timesteps_each: int = 8, batch: int = 64
) -> Tensor:
    """Mean squared error of each example, float64 of shape (N,), averaged over ``timesteps_each`` stratified
    timesteps.

    Timesteps and noise depend on ``seed`` and the example's index only, so two states of a model are compared
    on the same.
    """
    scheduler = DDPMScheduler.from_config(dict(model.scheduler_config))
    length = scheduler.config.num_train_timesteps
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(len(examples)).repeat_interleave(timesteps_each)
    strata = torch.arange(timesteps_each).repeat(len(examples)) + torch.rand(len(rows), generator=generator)
    timesteps = (strata * length / timesteps_each).long().clamp(max=length - 1)
    noise = torch.randn((len(rows), *examples.means.shape[1:]), generator=generator)
    losses = []
    for part in torch.arange(len(rows)).split(batch):
        index, steps, drawn = (
            rows[part].to(model.device),
            timesteps[part].to(model.device),
            noise[part].to(model.device),
        )
        latents = examples.means[index]
        noisy = scheduler.add_noise(latents, drawn, steps)
        with model.autocast(training=True):
            predicted = model.unet(noisy, steps, examples.states[index], return_dict=False)[0]
        losses.append(
            (predicted.float() - target(scheduler, latents, drawn, steps))
            .square()
            .flatten(1)
            .mean(1)
            .double()
            .cpu()
        )
    return torch.cat(losses).view(len(examples), timesteps_each).mean(1)
