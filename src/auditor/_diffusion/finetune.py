"""Ordinary fine-tuning, as in diffusers' text-to-image examples: noise prediction on captioned images, UNet
only.

LoRA: Hu et al. 2021 on the attention projections (to_q, to_k, to_v, to_out.0), initialised as peft's
``gaussian``. Latents and text states are computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional

from auditor._diffusion.denoising import Passes, noised_prediction, sent, training_draw
from auditor._diffusion.memory import in_parts
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.side_by_side import is_small
from auditor._process.machine import torch_threads
from auditor.errors import UsageError
from auditor.families.family import Condition, Family, Noising

_ROOMY = 26 * 10**9  # bytes; cards that are sold as 24 GB have up to 25.8
_ADAPTER = "probe"
_FEW = 8  # images a step: a small denoiser trains on them no faster with two threads than with one


@dataclass(frozen=True)
class Examples:
    """What a denoiser trains on: latent means and deviations (N, C, H, W), and what it is told of each."""

    means: Tensor
    deviations: Tensor
    condition: Condition

    @classmethod
    def of(cls, model: DiffusionModel, images: Tensor, captions: Sequence[str]) -> Examples:
        """Encode ``images`` (uint8, (N, 3, H, W)) and ``captions`` once."""
        return cls(*model.encode(images), model.condition(captions))

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
    """Compute activations again instead of keeping them; None: on GPUs of 24 GB or less."""


def finetune(
    model: DiffusionModel,
    examples: Examples,
    training: Training,
    doses: Sequence[int],
    seed: int,
    on_step: Callable[[int], None] = lambda step: None,
    on_fewer: Callable[[int], None] = lambda rows: None,
) -> Iterator[int]:
    """Train ``model``'s denoiser in place and yield each of ``doses`` (steps, rising) when it is reached.

    Every step draws from its own CPU generator, seeded by (seed, step). When the iterator is exhausted or
    closed a LoRA has been removed again; a full fine-tune stays. Where memory runs out in a step, it is begun
    again with half as many rows through the denoiser at once and the gradient of the same mean, as are all
    later ones; ``on_fewer`` is told how many.
    """
    denoiser, noising = model.denoiser, model.noising()
    with _trainable(model, training, seed) as parameters:
        optimizer = optimizer_of(parameters, training, model.device)
        few = training.batch <= _FEW and is_small(model)
        passes = Passes(training.batch, on_fewer)
        for step in range(1, doses[-1] + 1):
            with torch_threads(1 if few else torch.get_num_threads()):
                rows, latents, noise, times = training_draw(
                    noising, examples.means, examples.deviations, training.batch, seed, step
                )
                told = examples.condition[rows]
                passes.backward(parameters, partial(_loss, model, noising, latents, noise, times, told))
                nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            on_step(step)
            if step in doses:
                denoiser.eval()
                yield step
                denoiser.train()


def _loss(
    model: DiffusionModel,
    noising: Noising,
    latents: Tensor,
    noise: Tensor,
    times: Tensor,
    condition: Condition,
    part: slice,
) -> Tensor:
    """The mean squared error of a part of a step's rows."""
    predicted, wanted = noised_prediction(
        model, noising, latents[part], noise[part], times[part], condition[part]
    )
    return functional.mse_loss(predicted, wanted)


@contextmanager
def _trainable(model: DiffusionModel, training: Training, seed: int) -> Iterator[list[nn.Parameter]]:
    """The parameters to train, with gradients on; afterwards off again and a LoRA removed."""
    denoiser = model.denoiser
    denoiser.requires_grad_(False)
    with saving_memory(model, training), ExitStack() as stack:
        if training.method == "lora":
            stack.enter_context(lora_layers(model, training.rank, seed))
            parameters = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
        else:
            parameters = list(denoiser.requires_grad_(True).parameters())
        denoiser.train()
        try:
            yield parameters
        finally:
            denoiser.eval().requires_grad_(False)


@contextmanager
def lora_layers(model: DiffusionModel, rank: int, seed: int) -> Iterator[None]:
    """While open, ``model``'s denoiser has a LoRA called ``probe``, as ``seed`` begins it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.denoiser.add_adapter(lora_config(model.family, rank), adapter_name=_ADAPTER)
    try:
        yield
    finally:
        model.denoiser.unload_lora()


@torch.no_grad()
def add_lora_product(denoiser: nn.Module, lora: nn.Module, weights: Mapping[str, Tensor], by: float) -> None:
    """Make each layer's weight of ``denoiser`` ``weights`` + ``by`` * (alpha/r) * B A (Hu et al. 2021,
    section 4.1), with the factors A and B of the LoRA that is laid on ``lora``, as they are at this moment.

    ``weights`` holds the weights to add to, by the layer's name, each of the layer's shape. Where the product
    is nothing, they are put back bit for bit.
    """
    for name, layer in lora_layers_of(lora).items():
        product = by * layer.get_delta_weight(_ADAPTER)
        weight, before = denoiser.get_parameter(f"{name}.weight"), weights[name]
        weight.copy_(before + product.to(before) if bool(product.any()) else before)


def lora_layers_of(denoiser: nn.Module) -> dict[str, LoraLayer]:
    """The layers that a LoRA is laid on, by name."""
    return {name: layer for name, layer in denoiser.named_modules() if isinstance(layer, LoraLayer)}


def lora_config(family: Family, rank: int) -> LoraConfig:
    """How a probe's LoRA is laid on."""
    return LoraConfig(
        r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(family.lora_targets)
    )


@contextmanager
def saving_memory(model: DiffusionModel, training: Training) -> Iterator[None]:
    """While open, activations are computed again instead of kept, where ``training`` or the device asks for
    it."""
    saves = training.checkpointing
    if saves is None:
        device = model.device
        saves = device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory < _ROOMY
    if saves:
        model.denoiser.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if saves:
            model.denoiser.disable_gradient_checkpointing()


def optimizer_of(
    parameters: list[nn.Parameter], training: Training, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW over ``parameters``; :class:`UsageError` where its moments cannot be kept in eight bits."""
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
    on the same. At most ``batch`` rows go through the denoiser at once, fewer where memory runs out.
    """
    noising = model.noising()
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(len(examples)).repeat_interleave(timesteps_each)
    strata = torch.arange(timesteps_each).repeat(len(examples)) + torch.rand(len(rows), generator=generator)
    times = noising.spread(strata / timesteps_each)
    noise = torch.randn((len(rows), *examples.means.shape[1:]), generator=generator)

    def measured(part: slice) -> Tensor:
        index, moments, drawn = (sent(each[part], model.device) for each in (rows, times, noise))
        predicted, wanted = noised_prediction(
            model, noising, examples.means[index], drawn, moments, examples.condition[index]
        )
        return (predicted - wanted).square().flatten(1).mean(1).double()

    losses = torch.cat(in_parts(measured, len(rows), batch)).cpu()
    return losses.view(len(examples), timesteps_each).mean(1)
