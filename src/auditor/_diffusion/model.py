"""A text-to-image model in memory: its parts, the family that knows how they work together, and what can be
computed once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from auditor._diffusion.at_once import decoded_at_once, encoded_at_once
from auditor._diffusion.latents import KeptLatents
from auditor._diffusion.memory import in_parts
from auditor.families.family import Condition, Family, Noising

_TEXT_BATCH = 64
_TEXT_BATCH_GPU = 16  # always as many: a GPU chooses how it adds by the number of rows
_NAMES_ALONE = ("architectures", "dtype", "torch_dtype", "transformers_version", "sample_size")


def digest_of_weights(module: nn.Module) -> str:
    """sha256 of every tensor of a module with its name, in sorted order, and of how adapters are laid on
    (peft's configurations)."""
    adapters = {name: config.to_dict() for name, config in getattr(module, "peft_config", {}).items()}
    digest = hashlib.sha256(json.dumps(adapters, sort_keys=True, default=plain).encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def configuration_of(part: Any) -> dict[str, Any]:
    """What a component's configuration says of how it computes: no names, kinds or versions."""
    config = part.config.to_dict() if hasattr(part.config, "to_dict") else dict(part.config)
    return {
        key: value for key, value in config.items() if not key.startswith("_") and key not in _NAMES_ALONE
    }


def plain(value: object) -> object:
    """For JSON: peft's configurations hold sets and enumerations."""
    return sorted(value) if isinstance(value, set) else str(value)


@dataclass(eq=False)
class DiffusionModel:
    """The parts of a latent diffusion model (Rombach et al. 2022), in evaluation mode on one device.

    ``parts`` are its components by the names of the checkpoint's folders; each is an attribute too
    (``model.text_encoder``). ``digest`` names the weights as loaded. Weights are float32; the denoiser
    computes in ``precision`` (autocast). What the denoiser is told of a prompt is computed once and kept:
    text encoders are frozen in most probes and erasers.
    """

    parts: dict[str, Any]
    family: Family
    scheduler_config: Mapping[str, Any]
    digest: str
    precision: torch.dtype = torch.float32
    _conditions: dict[str, Mapping[str, Tensor]] = field(default_factory=dict, repr=False)
    _latents: KeptLatents | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.parts = dict(self.parts)  # a model's own, so that another of the same parts keeps its

    def __setattr__(self, name: str, value: Any) -> None:
        """A part is put into its place among the others, not beside them."""
        if name in self.__dict__.get("parts", ()):
            self.parts[name] = value
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "parts" or name not in self.parts:
            raise AttributeError(f"this model has no part '{name}'")
        return self.parts[name]

    def with_parts(self, parts: Mapping[str, Any], schedule: Mapping[str, Any]) -> DiffusionModel:
        """A model of the same family with ``parts`` in the place of this one's, another noise ``schedule``,
        and the rest shared; ``digest`` stays this one's."""
        own = {**self.parts, **parts}
        return replace(self, parts=own, scheduler_config=dict(schedule), _conditions={})

    @property
    def denoiser(self) -> Any:
        """The part that denoises: UNet or transformer."""
        return self.parts[self.family.denoiser]

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Every part with weights, by name."""
        return {name: self.parts[name] for name in self.family.weights}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.denoiser.device
        return device

    @property
    def on_gpu(self) -> bool:
        """Does what a row becomes hang, in its last bits, on how many rows are computed with it?"""
        return self.device.type != "cpu"

    def autocast(self, *, training: bool = False) -> torch.autocast:
        """The denoiser's arithmetic. Gradients in half precision would need scaling, so training falls back
        to float32 there."""
        kind = torch.float32 if training and self.precision is torch.float16 else self.precision
        return torch.autocast(self.device.type, dtype=kind, enabled=kind is not torch.float32)

    def predict(
        self, latents: Tensor, times: Tensor, condition: Condition, *, training: bool = False
    ) -> Tensor:
        """What the denoiser predicts for ``latents`` (N, C, H, W) at ``times`` (N,) or (), as float32."""
        with self.autocast(training=training):
            return self.family.predict(self.denoiser, latents, times, condition).float()

    def predict_in_half(self, latents: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """The same while the denoiser's weights are in half precision
        (:mod:`auditor._diffusion.half`): what goes in is too, and nothing is cast within."""
        rows = {
            name: value.to(self.precision) if value.is_floating_point() else value
            for name, value in condition.rows.items()
        }
        into = latents.to(self.precision)
        return self.family.predict(self.denoiser, into, times, Condition(rows)).float()

    def noising(self) -> Noising:
        """The noise that this model was trained with."""
        return self.family.noising(self.scheduler_config)

    def latent_shape(self, size: int) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of a ``size`` x ``size`` image."""
        return self.family.latent_shape(self.parts, size)

    @torch.no_grad()
    def condition(self, prompts: Sequence[str]) -> Condition:
        """What the denoiser is told of ``prompts``, a row each."""
        new, size = sorted(set(prompts) - self._conditions.keys()), _TEXT_BATCH
        if self.on_gpu:
            size = _TEXT_BATCH_GPU
        for start in range(0, len(new), size):
            batch = new[start : start + size]
            filled = batch + [""] * (size - len(batch)) if self.on_gpu else batch
            rows = self.family.condition(self.parts, filled).rows
            self._conditions |= {
                prompt: {name: value[at] for name, value in rows.items()} for at, prompt in enumerate(batch)
            }
        kept = [self._conditions[prompt] for prompt in prompts]
        return Condition({name: torch.stack([rows[name] for rows in kept]) for name in kept[0]})

    def text_states(self, prompts: Sequence[str]) -> Tensor:
        """What the text projections (:meth:`projections`) read of ``prompts``: (N, tokens, width)."""
        return self.condition(prompts).rows["states"]

    def forget_text_states(self) -> None:
        """Compute conditions anew from here on: for who changes a text encoder."""
        self._conditions.clear()

    def token_ids(self, prompts: Sequence[str]) -> Tensor:
        """Token ids of shape (N, tokens), padded or cut to the model's length."""
        return self.family.token_ids(self.parts, prompts).to(self.device)

    def projections(self) -> dict[str, Tensor]:
        """The denoiser's weights that turn text into keys and values, by parameter name; empty where it has
        none."""
        return self.family.projections(self.denoiser)

    def keep_latents(self, of: DiffusionModel | None = None) -> None:
        """From here on this model, and copies of it whose autoencoder is still the same, encode images once.

        For a model that nobody changes; with ``of``, another such one, they share what that one keeps.
        """
        self._latents = (of or self)._latents or KeptLatents(self.parts[self.family.decoder])

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scaled latents of ``images`` (uint8, (N, 3, H, W)).

        At most 64 images of at most a million pixels in all go through the autoencoder at once, fewer where
        memory runs out.
        """

        if self._latents is None:
            return self._encoded(images)
        return self._latents.of(self.parts[self.family.decoder], images, self._encoded)

    def _encoded(self, images: Tensor) -> tuple[Tensor, Tensor]:
        def encoded(rows: slice) -> tuple[Tensor, Tensor]:
            pixels = images[rows].to(self.device, torch.float32) / 127.5 - 1
            return self.family.encode(self.parts, pixels)

        at_once = encoded_at_once(images.shape[-2] * images.shape[-1])
        means, deviations = zip(*in_parts(encoded, max(1, len(images)), at_once), strict=True)
        return torch.cat(means), torch.cat(deviations)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Images of scaled ``latents`` (uint8, (N, 3, H, W), CPU), and for each whether all of its pixels
        were finite. On a GPU a few at a time."""
        most = decoded_at_once(latents[0, 0].numel())
        if self.on_gpu and len(latents) > most:
            images, sound = zip(*(self.decode(part) for part in latents.split(most)), strict=True)
            return torch.cat(images), torch.cat(sound)
        pixels = self.family.decode(self.parts, latents)
        finite = pixels.isfinite().flatten(1).all(1).cpu()
        pixels = torch.nan_to_num(pixels, nan=-1.0, posinf=-1.0, neginf=-1.0)
        return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu(), finite
