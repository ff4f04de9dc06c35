"""LoRAs that take away the attention which a concept's tokens draw inside its mask (Lu et al. 2024, Eq. 3),
many concepts in one pass.

The concepts' losses share no parameter, AdamW works element by element and gradients are clipped concept by
concept, so that training them together is training each alone: what a concept draws (images, prompts,
timesteps, noise, first weights) hangs on its own seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from auditor._diffusion.closed_form import LowRank
from auditor._diffusion.denoising import sent
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.reproducible import reproducible
from auditor.builtins.erasers.mace.attention import StackedLora, attention_losses, recorded_attention
from auditor.families.family import Condition
from auditor.families.noising import DdpmNoising

_LARGEST_GRADIENT = 1.0


@dataclass(frozen=True)
class ConceptImages:
    """Training images of one concept: scaled latents (N, C, H, W) and masks (N, H, W) in {0, 1}."""

    latents: Tensor
    masks: Tensor


@dataclass(frozen=True)
class LoraTask:
    """One concept to train a LoRA for: its images, its prompts' states (P, tokens, width) and marked
    tokens (P, tokens), and a seed."""

    images: ConceptImages
    states: Tensor
    marked: Tensor
    seed: int


@dataclass(frozen=True)
class LoraSetting:
    """How LoRAs are trained."""

    steps: int
    learning_rate: float
    rank: int
    batch: int
    importance_sampling: bool
    squared: bool = True


@dataclass(frozen=True)
class TrainedLora:
    """A concept's LoRA by projection ("….attn2.to_k"), on the CPU, and the loss of every step."""

    lora: dict[str, LowRank]
    losses: tuple[float, ...]


def focal_timesteps(length: int, generator: torch.Generator, count: int) -> Tensor:
    """Timesteps by concept-focal importance sampling: sigma(0.05 (t - 200)) - sigma(0.05 (t - 400)) of
    1,000, normalised."""
    times = torch.arange(length, dtype=torch.float64) * 1000 / length
    weights = torch.sigmoid(0.05 * (times - 200)) - torch.sigmoid(0.05 * (times - 400))
    return torch.multinomial(weights, count, replacement=True, generator=generator)


def train_loras(
    model: DiffusionModel,
    tasks: Sequence[LoraTask],
    setting: LoraSetting,
    on_step: Callable[[int], None] = lambda step: None,
) -> list[TrainedLora]:
    """Train a LoRA for each task, all of them in every pass of the UNet; the UNet stays as it is."""
    stacked, shown = _first_weights(model, tasks, setting.rank), _Shown.of(model, tasks)
    parameters = [part for lora in stacked.values() for part in (lora.down, lora.up)]
    optimizer = torch.optim.AdamW(parameters, lr=setting.learning_rate, weight_decay=0.01)
    each_step = []
    with reproducible(model.device), recorded_attention(model.denoiser, stacked) as maps:
        for step in range(setting.steps):
            each = _losses(model, shown, setting, step, maps)
            each.sum().backward()
            _clip_each(parameters)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            each_step.append(each.detach())
            on_step(step + 1)
    losses: list[list[float]] = torch.stack(each_step).tolist()
    return [
        TrainedLora(
            {
                name: LowRank(lora.up[at].detach().cpu().clone(), lora.down[at].detach().cpu().clone())
                for name, lora in stacked.items()
            },
            tuple(row[at] for row in losses),
        )
        for at in range(len(tasks))
    ]


def concepts_at_once(model: DiffusionModel, task: LoraTask, setting: LoraSetting, budget: float) -> int:
    """How many tasks like this one may share a training step whose activations take at most ``budget`` bytes;
    at least one.

    Measured on one forward pass: what autograd keeps for the backward pass, the model's own weights not
    counted.
    """
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    own = {weight.untyped_storage().data_ptr() for weight in model.denoiser.parameters()}
    stacked = _first_weights(model, [task], setting.rank)
    with (
        recorded_attention(model.denoiser, stacked) as maps,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        loss = _losses(model, _Shown.of(model, [task]), setting, 0, maps)
        one = sum(held for pointer, held in kept.items() if pointer not in own)
        del loss
    return max(1, int(budget // max(one, 1)))


def _first_weights(model: DiffusionModel, tasks: Sequence[LoraTask], rank: int) -> dict[str, StackedLora]:
    """``down`` from N(0, 1/r^2) by each task's seed, as peft's "gaussian", and ``up`` zero."""
    stacked = {}
    generators = [torch.Generator().manual_seed(task.seed) for task in tasks]
    for name, weight in model.projections().items():
        out, width = weight.shape
        down = torch.stack([torch.randn(rank, width, generator=generator) / rank for generator in generators])
        up = torch.zeros(len(tasks), out, rank)
        lora = StackedLora(down.to(model.device).requires_grad_(), up.to(model.device).requires_grad_())
        stacked[name.removesuffix(".weight")] = lora
    return stacked


@dataclass(frozen=True)
class _Shown:
    """All that the tasks' steps take from, on the model's device, one task's after the other's."""

    seeds: tuple[int, ...]
    images: tuple[int, ...]
    """Images of each task."""
    prompts: tuple[int, ...]
    """Prompts of each task."""
    latents: Tensor
    masks: Tensor
    states: Tensor
    marked: Tensor
    noising: DdpmNoising

    @classmethod
    def of(cls, model: DiffusionModel, tasks: Sequence[LoraTask]) -> _Shown:
        """What ``tasks`` are shown."""
        return cls(
            tuple(task.seed for task in tasks),
            tuple(len(task.images.latents) for task in tasks),
            tuple(len(task.states) for task in tasks),
            torch.cat([task.images.latents for task in tasks]).to(model.device),
            torch.cat([task.images.masks for task in tasks]).to(model.device),
            torch.cat([task.states for task in tasks]).to(model.device),
            torch.cat([task.marked for task in tasks]).to(model.device),
            DdpmNoising(model.scheduler_config),
        )


def _losses(
    model: DiffusionModel, shown: _Shown, setting: LoraSetting, step: int, maps: list[Tensor]
) -> Tensor:
    """One loss a task, on the device: the mean over its samples of this step."""
    noising, noises, times, rows, texts = shown.noising, [], [], [], []
    first_image = first_prompt = 0
    for seed, images, prompts in zip(shown.seeds, shown.images, shown.prompts, strict=True):
        generator = torch.Generator().manual_seed(seed + 1 + step)
        rows.append(first_image + torch.randint(images, (setting.batch,), generator=generator))
        texts.append(first_prompt + torch.randint(prompts, (setting.batch,), generator=generator))
        if setting.importance_sampling:
            times.append(focal_timesteps(noising.length, generator, setting.batch))
        else:
            times.append(noising.times(setting.batch, generator))
        noises.append(torch.randn((setting.batch, *shown.latents.shape[1:]), generator=generator))
        first_image, first_prompt = first_image + images, first_prompt + prompts
    noise, time, row, text = (sent(torch.cat(part), model.device) for part in (noises, times, rows, texts))
    maps.clear()
    noisy, told = noising.add(shown.latents[row], noise, time), Condition({"states": shown.states[text]})
    model.predict(noisy, time, told, training=True)
    losses = attention_losses(maps, shown.masks[row], shown.marked[text], squared=setting.squared)
    maps.clear()
    return losses.view(len(shown.seeds), -1).mean(1)


def _clip_each(parameters: Sequence[Tensor]) -> None:
    """Clip every concept's gradient to norm 1, as ``clip_grad_norm_`` does where there is but one."""
    gradients = [part.grad for part in parameters if part.grad is not None]
    squares = torch.stack([gradient.square().flatten(1).sum(1) for gradient in gradients])
    factors = (_LARGEST_GRADIENT / (squares.sum(0).sqrt() + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors[:, None, None])
