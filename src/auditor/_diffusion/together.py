"""Several LoRA fine-tunes of one denoiser in one pass: the rows of all in one batch, each through its own
factors.

Losses, clipping and AdamW are each run's own, so each learns what it would learn alone, up to the last bits
of sums that are taken in other company. A pass of a small denoiser over twelve rows takes half of the time of
three passes over four.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from auditor._diffusion.denoising import noised_prediction, training_draw
from auditor._diffusion.finetune import Examples, Training, lora_layers, optimizer_of, saving_memory
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.reproducible import reproducible
from auditor.families.family import Condition


@dataclass(frozen=True)
class Member:
    """One LoRA fine-tune among others: what :func:`~auditor._diffusion.finetune.finetune` is given."""

    examples: Examples
    training: Training
    doses: Sequence[int]
    seed: int


Factors = Mapping[str, Tensor]
"""A LoRA's two matrices of every layer, by the names that peft gives them in the denoiser's state."""


def may_join(training: Training) -> bool:
    """Can a fine-tune of this kind be one of several?"""
    return training.method == "lora" and not training.eight_bit


class Together:
    """The members of one pass, trained from the same denoiser, which is left as it was.

    ``model`` must be nobody else's while they are trained: its denoiser is given hooks.
    """

    def __init__(self, model: DiffusionModel, members: Sequence[Member]) -> None:
        self._model, self._members, self._noising = model, members, model.noising()
        model.denoiser.requires_grad_(False)
        self._factors = [_first_factors(model, member) for member in members]
        self._now: dict[str, tuple[Tensor, Tensor]] = {}
        self.step = 0
        """The last step that was taken."""

    def train(self, stop: threading.Event) -> list[dict[int, Factors]]:
        """Each member's factors at each of its doses. Ends early once ``stop`` is set."""
        found: list[dict[int, Factors]] = [{} for _ in self._members]
        parameters = [[tensor for pair in own.values() for tensor in pair] for own in self._factors]
        optimizers = [
            optimizer_of(own, member.training, self._model.device)
            for own, member in zip(parameters, self._members, strict=True)
        ]
        first = self._members[0].training
        with (
            torch.enable_grad(),
            reproducible(self._model.device),
            saving_memory(self._model, first),
            self._hooked(),
        ):
            for step in range(1, max(member.doses[-1] for member in self._members) + 1):
                if stop.is_set():
                    break
                active = [n for n, member in enumerate(self._members) if step <= member.doses[-1]]
                self._now = {
                    layer: (
                        torch.stack([self._factors[n][layer][0] for n in active]),
                        torch.stack([self._factors[n][layer][1] for n in active]),
                    )
                    for layer in self._factors[0]
                }
                self._loss(active, step).backward()
                self._now = {}
                for number in active:
                    nn.utils.clip_grad_norm_(parameters[number], 1.0)
                    optimizers[number].step()
                    optimizers[number].zero_grad(set_to_none=True)
                    if step in self._members[number].doses:
                        found[number][step] = self._snapshot(number)
                self.step = step
        return found

    def _loss(self, active: Sequence[int], step: int) -> Tensor:
        """The sum of the active members' mean squared errors: none has a share in another's gradient."""
        noising, drawn, conditions = self._noising, [], []
        for member in (self._members[number] for number in active):
            own, batch = member.examples, member.training.batch
            rows, *rest = training_draw(noising, own.means, own.deviations, batch, member.seed, step)
            drawn.append(rest)
            conditions.append(own.condition[rows])
        latents, noise, times = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        predicted, wanted = noised_prediction(
            self._model, noising, latents, noise, times, Condition.joined(*conditions)
        )
        return (predicted - wanted).square().reshape(len(active), -1).mean(1).sum()

    def _snapshot(self, number: int) -> Factors:
        return {
            f"{layer}.lora_{which}.probe.weight": factor.detach().clone()
            for layer, pair in self._factors[number].items()
            for which, factor in zip("AB", pair, strict=True)
        }

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        """Each layer that a LoRA is laid on adds what its members' factors make of its input."""

        def adding(layer: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
            def add(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
                downs, ups = self._now[layer]
                rows = given[0].reshape(len(downs), -1, given[0].shape[-1])
                return output + (rows @ downs.mT @ ups.mT).reshape(output.shape)

            return add

        denoiser = self._model.denoiser
        hooks = [
            denoiser.get_submodule(layer).register_forward_hook(adding(layer)) for layer in self._factors[0]
        ]
        denoiser.train()
        try:
            yield
        finally:
            denoiser.eval()
            for hook in hooks:
                hook.remove()


def _first_factors(model: DiffusionModel, member: Member) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
    """What a LoRA begins with, as peft lays it on for a member's seed."""
    with lora_layers(model, member.training.rank, member.seed):
        return {
            name: (
                nn.Parameter(layer.lora_A["probe"].weight.detach().clone()),
                nn.Parameter(layer.lora_B["probe"].weight.detach().clone()),
            )
            for name, layer in model.denoiser.named_modules()
            if isinstance(layer, LoraLayer)
        }
