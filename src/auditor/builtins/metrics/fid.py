"""FID: the Fréchet distance on Inception's features, through torchmetrics, with weights that the user
brings."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from auditor._process.device import best_device
from auditor.builtins.metrics.distances import frechet_distance
from auditor.errors import UsageError
from auditor.plugin.contracts import ImageOutcome, Metric, OptionsModel

if TYPE_CHECKING:
    from torch import Tensor

_BATCH = 32


class FidOptions(OptionsModel):
    """Which weights."""

    weights: Path
    """Inception's, in torch-fidelity's names: safetensors, or a state dict that
    ``torch.load(weights_only=True)`` reads."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of that file: what is measured with hangs on it."""


class Fid(Metric):
    """2048 features of Inception v3 as the original FID computes them."""

    name = "fid"
    summary = (
        "FID to the base's images of the same prompts (torchmetrics; Inception's weights are the user's)"
    )
    source = "Heusel et al. 2017, arXiv:1706.08500"
    higher_is_better = False
    resamples = 100
    Options: ClassVar[type[OptionsModel]] = FidOptions

    @cached_property
    def _inception(self) -> Any:
        try:
            from torchmetrics.image.fid import NoTrainInceptionV3
        except ImportError as error:
            raise UsageError(
                "The metric 'fid' needs torchmetrics and torch-fidelity: pip install 'auditor[fid]'."
            ) from error
        import torch

        state = _read_weights(self.options.weights, self.options.sha256)
        with tempfile.NamedTemporaryFile(
            suffix=".pt"
        ) as file:  # the library unpickles what it is given: it gets what was read safely
            torch.save(state, file)
            file.flush()
            try:
                network = NoTrainInceptionV3("inception-v3-compat", ["2048"], file.name)
            except RuntimeError as error:
                raise UsageError(
                    f"{self.options.weights} does not hold torch-fidelity's Inception: "
                    f"{str(error).splitlines()[0]}"
                ) from error
        return network.eval().to(best_device())

    def features(
        self, images: Tensor, prompts: Sequence[str], outcomes: Sequence[ImageOutcome] | None = None
    ) -> np.ndarray:
        """Inception's pooled features, (N, 2048)."""
        import torch

        device = next(self._inception.parameters()).device
        parts = []
        with torch.no_grad():
            parts = [self._inception(part.to(device)).double().cpu() for part in images.split(_BATCH)]
        rows: np.ndarray = torch.cat(parts).numpy()
        return rows

    def value(self, features: np.ndarray, reference: np.ndarray) -> float:
        """The distance; comparable between equal numbers of images only."""
        return frechet_distance(features, reference)


def _read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    """Tensors of a safetensors file or of a state dict, no other object. Raises :class:`UsageError` for
    anything else."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"Cannot read Inception's weights {path}: {error.strerror}.") from error
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise UsageError(f"{path} has the sha256 {found}, not the one that the option 'sha256' names.")
    try:
        held: Any = (
            load(content)
            if path.suffix == ".safetensors"
            else torch.load(io.BytesIO(content), weights_only=True)
        )
    except (SafetensorError, RuntimeError, ValueError, EOFError, KeyError, OSError) as error:
        raise UsageError(f"{path} is no file of weights: {str(error).splitlines()[0]}") from error
    except UnpicklingError as error:
        raise UsageError(
            f"{path} holds more than weights and was not opened: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(held, dict) or not all(isinstance(value, torch.Tensor) for value in held.values()):
        raise UsageError(f"{path} is no plain state dict of tensors.")
    return held
