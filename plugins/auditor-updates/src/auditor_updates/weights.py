"""Updates that train on nothing: quantisation, noise, a LoRA of the user's."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from auditor.plugin import (
    OptionsModel,
    ProbeSetting,
    RefusedError,
    TrainingRequest,
    Update,
    UsageError,
    WeightProbe,
)

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Untrained(WeightProbe):
    """Changes the weights once; every dose is the same."""

    def training_set(self, setting: ProbeSetting) -> list[TrainingRequest] | Path:
        """Nothing."""
        return []

    @abstractmethod
    def apply(self, update: Update) -> None:
        """Change the UNet in place."""

    def update(self, update: Update) -> Iterator[int]:
        """Apply, then yield."""
        self.apply(update)
        yield from update.doses


class QuantisationOptions(OptionsModel):
    """To what."""

    to: Literal["int8", "float16", "bfloat16"] = "int8"
    """``int8``: symmetric, one scale an output channel, weights of convolutions and linear layers only.
    Others: every weight."""


_LEAST_OF_KIND = {"int8": 2e-3, "bfloat16": 5e-4, "float16": 1e-5}
"""A fraction of what rounding changes in normally distributed weights, a few tensors of which an eraser
edited in float32."""


class Quantisation(Untrained):
    """A round trip through fewer bits, as when a checkpoint is published or served smaller."""

    name = "quantisation"
    summary = "weights rounded to int8, float16 or bfloat16 and back"
    source = "symmetric per-channel rounding, as in Jacob et al. 2018, arXiv:1712.05877"
    Options: ClassVar[type[OptionsModel]] = QuantisationOptions

    @property
    def title(self) -> str:
        """With the type."""
        return f"{self.name}-{self.options.to}"

    def least_change(self) -> float | None:
        """What rounding to this type moves at least."""
        return _LEAST_OF_KIND[self.options.to]

    def apply(self, update: Update) -> None:
        """Round in place."""
        import torch

        same = True
        with torch.no_grad():
            for weight in update.model.denoiser.parameters():
                after = rounded(weight, self.options.to)
                same = same and torch.equal(after, weight)
                weight.copy_(after)
        if same:
            raise UsageError(
                f"The weights are {self.options.to} already, so this changes nothing; take the probe out of "
                "the policy."
            )


def rounded(weight: Tensor, to: str) -> Tensor:
    """``weight`` after a round trip through type ``to``, in its own type."""
    import torch

    if to != "int8":
        return weight.to(getattr(torch, to)).to(weight)
    if weight.ndim < 2:
        return weight
    step = weight.flatten(1).abs().amax(dim=1).clamp(min=1e-12).view(-1, *[1] * (weight.ndim - 1)) / 127
    return (weight / step).round().clamp(-127, 127) * step


class WeightNoiseOptions(OptionsModel):
    """How much."""

    scale: float = Field(default=0.01, gt=0, le=1)
    """Standard deviation of the noise, in root mean squares of each tensor."""


class WeightNoise(Untrained):
    """Gaussian noise on every weight: no update that anyone means to make, but the mildest that there is."""

    name = "weight-noise"
    summary = "Gaussian noise on every weight, in proportion to its tensor"
    Options: ClassVar[type[OptionsModel]] = WeightNoiseOptions

    def least_change(self) -> float | None:
        """Half of what is expected."""
        scale: float = self.options.scale
        return scale / 2

    def apply(self, update: Update) -> None:
        """Add the noise; the same for the same seed on every device."""
        import torch

        generator = torch.Generator().manual_seed(update.seed)
        with torch.no_grad():
            for weight in update.model.denoiser.parameters():
                weight += self.options.scale * weight.square().mean().sqrt() * _noise(weight, generator)


def _noise(weight: Tensor, generator: Generator) -> Tensor:
    import torch

    return torch.randn(weight.shape, generator=generator).to(weight)


class MergeLoraOptions(OptionsModel):
    """Which LoRA."""

    file: Path
    """A safetensors file, in the names of peft, diffusers, kohya or LyCORIS; peft's settings are read from
    ``adapter_config.json`` beside ``adapter_model.safetensors``."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of the file: the policy says which weights are meant, and nothing else is merged."""
    scale: float = Field(default=1.0, gt=0)
    """What the LoRA is multiplied by."""


class MergeLora(Untrained):
    """A LoRA that somebody else trained, merged into the weights."""

    name = "merge-lora"
    summary = "a LoRA from a file, merged into the weights"
    source = "Hu et al. 2021, arXiv:2106.09685"
    Options: ClassVar[type[OptionsModel]] = MergeLoraOptions

    def least_change(self) -> float | None:
        """Anything that is no rounding error."""
        return 1e-5

    def changes(self, method: str) -> tuple[str, ...]:
        """Most published LoRAs change the text encoder too."""
        return ("denoiser.*", "text_encoder.*")

    def files(self) -> tuple[Path, ...]:
        """The LoRA, and the settings beside it that say how strong it is."""
        settings = self._settings()
        return (self.options.file,) if settings is None else (self.options.file, settings)

    def _settings(self) -> Path | None:
        file: Path = self.options.file
        settings = file.with_name("adapter_config.json")
        return settings if settings.is_file() else None

    def apply(self, update: Update) -> None:
        """Read, compare with the digest, judge the header, merge."""
        import hashlib
        import json

        from safetensors.torch import load

        from auditor.plugin import merge_lora, read_header

        file, model = self.options.file, update.model
        if not file.is_file():
            raise UsageError(
                f"There is no LoRA {file}; give merge-lora's option 'file' as a path from where auditor is "
                "run."
            )
        header, content = read_header(file), file.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != self.options.sha256:
            raise UsageError(f"{file} has the sha256 {found}, not the one in the policy; it is another LoRA.")
        tensors = {name: tensor.to(model.device) for name, tensor in load(content).items()}
        try:
            settings = self._settings()
            by_peft = file.name == "adapter_model.safetensors" or any(
                name.startswith("base_model.") for name in tensors
            )
            config = (
                json.loads(settings.read_text(encoding="utf-8")) if settings is not None and by_peft else None
            )
            merge_lora(model, str(file), tensors, header.metadata, self.options.scale, config)
        except RefusedError as error:
            raise UsageError(str(error)) from error
