"""Models of true shape with random weights, made on the device itself: no files are read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from auditor._files.bundled import micro_world
from tests.science.true_size import SHAPES, parts_of, schedule_of

if TYPE_CHECKING:
    import torch

    from auditor._diffusion.model import DiffusionModel

__all__ = ["SHAPES", "random_model"]


def random_model(shape: str, device: torch.device, dtype: str = "auto") -> DiffusionModel:
    """A model of ``shape`` (``sd1``, ``sd2``, ``sd21``) in evaluation mode, its weights float32 and the
    libraries' first ones."""
    import torch

    from auditor._checkpoint.load import precision_of
    from auditor._diffusion.model import DiffusionModel
    from auditor.families.stable_diffusion.family import STABLE_DIFFUSION

    with torch.device(device), torch.no_grad():
        parts = parts_of(shape)
    for part in parts.values():
        part.eval().requires_grad_(False)
    words = STABLE_DIFFUSION.read_words(shape, _words)
    schedule = dict(schedule_of(shape).config)
    precision = precision_of(dtype, device)
    return DiffusionModel(parts | words.tokenizers(), STABLE_DIFFUSION, schedule, shape, precision)


def _words(name: str) -> bytes | None:
    """The small world's words at CLIP's length."""
    path = micro_world() / name
    if not path.is_file():
        return None
    content = path.read_bytes()
    if path.name == "tokenizer_config.json":
        content = json.dumps(json.loads(content) | {"model_max_length": 77}).encode()
    return content
