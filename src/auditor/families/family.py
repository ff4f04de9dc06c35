"""The one seam between a model family and everything that audits, trains and erases models of it.

A family says what its components are and what their files may say (:mod:`auditor.families.on_disk`), what the
denoiser is told of a prompt, how noise is mixed in and what is predicted, how the denoiser is called, how
images become latents and back, and which weights read the text.
diffusers' modular pipelines cut at the same places: encoders, before denoising, denoising, decoders, with
guidance outside of them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from auditor.families.on_disk import OnDisk

if TYPE_CHECKING:  # a checkpoint is admitted without torch
    import torch
    from torch import Tensor, nn

Parts = Mapping[str, Any]
"""A model's components by name, as a checkpoint's folder names them: modules, and tokenizers."""


@dataclass(frozen=True)
class Condition:
    """What a denoiser is told of N prompts: tensors by name, a row a prompt, each of shape (N, ...)."""

    rows: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.rows.values())))

    def __getitem__(self, index: Tensor | slice) -> Condition:
        """Some rows: those of an index tensor, or a slice."""
        return Condition({name: value[index] for name, value in self.rows.items()})

    def repeated(self, count: int) -> Condition:
        """The only row, ``count`` times; no memory is taken for it."""
        return Condition({n: value.expand(count, *value.shape[1:]) for n, value in self.rows.items()})

    @staticmethod
    def joined(*conditions: Condition) -> Condition:
        """The rows of all, one after the other."""
        import torch

        return Condition(
            {name: torch.cat([each.rows[name] for each in conditions]) for name in conditions[0].rows}
        )


@dataclass(frozen=True)
class Activations:
    """Bytes that one image takes while it is computed, beside all weights: about."""

    latent_pixels: int
    """Pixels of its latents, no bytes."""
    drawn: int
    """Denoised with guidance, in half precision; twice as much in float32."""
    decoded: int
    """Made of its latents, in float32."""
    encoded: int
    lora: int
    """In a training step of a LoRA, nothing computed twice."""
    full: int
    """In one of the whole denoiser."""


class Noising(Protocol):
    """How noise is mixed into latents while a model is trained, and what the model is to predict."""

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """Random times of the noise schedule, (count,), as training draws them; CPU."""

    def spread(self, shares: Tensor) -> Tensor:
        """The times that lie at ``shares`` (0 to 1) of the noise schedule, in its order; same shape."""

    def add(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """``latents`` (N, C, H, W) with ``noise`` mixed in as at ``times`` (N,)."""

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What the denoiser is to predict of :meth:`add`'s result, (N, C, H, W)."""


class SamplingScheduler(Protocol):
    """What sampling needs of a scheduler; diffusers' have it."""

    init_noise_sigma: Any
    """What the first noise is multiplied by."""
    timesteps: Tensor
    """The times at which the denoiser is asked, in order."""

    def set_timesteps(self, steps: int, device: torch.device) -> None:
        """Choose :attr:`timesteps`."""

    def scale_model_input(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """``latents`` as the denoiser takes them at ``timestep``."""

    def step(
        self, predicted: Tensor, timestep: Tensor, latents: Tensor, return_dict: bool = False
    ) -> tuple[Tensor, ...]:
        """The latents after one step, as the first of a tuple."""


class Family(OnDisk):
    """A model family: what its checkpoints are on disk (:mod:`auditor.families.on_disk`), and how its parts
    work together. It holds no weights: everything is computed from a model's parts."""

    lora_targets: ClassVar[tuple[str, ...]]
    """Ends of the names of the denoiser's layers that a LoRA is laid on by default."""

    @property
    def weights(self) -> tuple[str, ...]:
        """Every part with weights, in the order that digests take them."""
        return (self.denoiser, *self.text, self.decoder)

    @abstractmethod
    def token_ids(self, parts: Parts, prompts: Sequence[str]) -> Tensor:
        """Token ids of ``prompts`` (N, tokens), padded or cut to the model's length; CPU."""

    @abstractmethod
    def condition(self, parts: Parts, prompts: Sequence[str]) -> Condition:
        """What the denoiser is told of ``prompts``."""

    @abstractmethod
    def noising(self, schedule: Mapping[str, Any]) -> Noising:
        """The noise that the model was trained with, from its ``schedule`` (the scheduler's configuration).

        Raises ``ValueError`` where the model predicts what cannot be trained.
        """

    @abstractmethod
    def sampling_scheduler(self, name: str, schedule: Mapping[str, Any]) -> SamplingScheduler:
        """A fresh scheduler, called ``name`` in policies, over the model's own noise schedule."""

    @abstractmethod
    def predict(self, denoiser: nn.Module, latents: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """One call of the denoiser: its prediction for ``latents`` (N, C, H, W) at ``times`` (N,) or ().

        The only place where it is called.
        """

    @abstractmethod
    def latent_shape(self, parts: Parts, size: int) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of a ``size`` x ``size`` image."""

    @abstractmethod
    def smallest(self, parts: Parts) -> tuple[tuple[int, int, int], int]:
        """The smallest latents that the denoiser takes (C, H, W), and the side of a small image (pixels)."""

    @abstractmethod
    def encode(self, parts: Parts, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scaled latents of ``pixels`` (float, -1 to 1, (N, 3, H, W))."""

    @abstractmethod
    def decode(self, parts: Parts, latents: Tensor) -> Tensor:
        """Pixels (float, about -1 to 1, (N, 3, H, W)) of scaled ``latents``."""

    @abstractmethod
    def projections(self, denoiser: nn.Module) -> dict[str, Tensor]:
        """The weights that turn text into keys and values, by parameter name: what closed forms edit.

        Empty where the family has none of that kind.
        """

    @abstractmethod
    def reads_text(self, name: str) -> bool:
        """Does the tensor ``name`` of the denoiser belong to a layer in which images attend to text?"""

    @abstractmethod
    def groups(self, name: str) -> tuple[str, ...]:
        """What the tensor ``name`` of the denoiser is summed up under in a table of distances, beside the
        whole."""

    def activations(self, configs: Mapping[str, Mapping[str, Any]], size: int) -> Activations | None:
        """What an image of ``size`` x ``size`` pixels takes while it is computed; None where that is not
        known. ``configs``: see :meth:`flops`."""
        return None

    @abstractmethod
    def flops(
        self, configs: Mapping[str, Mapping[str, Any]], shapes: Mapping[str, tuple[int, ...]], size: int
    ) -> int:
        """Operations, two per multiply-accumulate, of one call of the denoiser on one latent of a ``size`` x
        ``size`` image.

        ``configs`` holds the content of each part's config.json and ``shapes`` the denoiser's tensors. Raises
        ``ValueError`` where they are not known.
        """
