"""Merges an adapter's tensors into a model that is in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from auditor._checkpoint.adapters.table import read_adapter
from auditor._checkpoint.names import shapes_of

if TYPE_CHECKING:
    from auditor._diffusion.model import DiffusionModel


def merge_lora(
    model: DiffusionModel,
    source: str,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    scale: float = 1.0,
    config: Mapping[str, Any] | None = None,
) -> str:
    """Add ``scale`` times what the adapter ``tensors`` (of the file ``source``) holds to ``model``'s UNet and
    text encoder, and return what it was in words.

    ``metadata`` is that of the safetensors file, ``config`` the settings of an ``adapter_config.json`` beside
    it. Raises :class:`~auditor.errors.RefusedError`, naming a tensor, where something of it has no place in
    the model.
    """
    declared = {part: shapes_of(module) for part, module in model.modules.items()}
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    adapter = read_adapter(
        model.family,
        source,
        shapes,
        metadata,
        config,
        declared,
        lambda name: float(tensors[name].flatten()[0]),
    )
    adapter.merge(model.modules, tensors, scale)
    if set(adapter.parts) & set(model.family.text):
        model.forget_text_states()
    return adapter.sentence()
