"""What an erasure keeps of each concept, in its folder: Gram matrices, LoRA in diffusers' keys, and its
images while they are needed.

``grams/NAME.safetensors``   own (sum e e^T over its prompts), mapping (sum h e^T) and aligned (sum e e^T over
aligned tokens), float64 ``loras/NAME.safetensors``   unet.….attn2.to_k.lora.down.weight and .up.weight, as
``load_lora_weights`` reads them over refined weights ``images/NAME.safetensors``  latents and masks that the
LoRA is trained on; removed in the end ``refined.safetensors``      R of the refined weights W R that the
LoRAs belong to, float64

Each file says in its metadata what it was made from; one that was made from something else is made again.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from auditor._diffusion.closed_form import LowRank
from auditor._files.whole_files import on_disk, write_whole

_KEY = "auditor"


def file_name(concept: str) -> str:
    """A file's name for any concept's name: readable, and another for every name."""
    readable = re.sub(r"[^a-z0-9]+", "-", concept.casefold()).strip("-")[:40]
    return f"{readable}-{hashlib.sha256(concept.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class ConceptFolder:
    """The three files of one concept in an erasure's folder."""

    folder: Path
    concept: str

    def path(self, kind: str) -> Path:
        """The file of this kind: ``grams``, ``loras`` or ``images``."""
        return self.folder / kind / f"{file_name(self.concept)}.safetensors"

    def save(self, kind: str, tensors: dict[str, Tensor], made_from: dict[str, Any]) -> None:
        """Write tensors whole, with what they were made from."""
        plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        with on_disk(self.folder):
            write_whole(
                self.path(kind), save(plain, {"format": "pt", _KEY: json.dumps(made_from, sort_keys=True)})
            )

    def load(self, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors and what they were made from; None where there is no whole file of ours."""
        try:
            with safe_open(self.path(kind), "pt") as opened:
                made_from = json.loads((opened.metadata() or {})[_KEY])
                # no mapping
                return {name: opened.get_tensor(name) for name in opened.keys()}, made_from  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, ValueError):
            return None


def lora_tensors(lora: dict[str, LowRank]) -> dict[str, Tensor]:
    """A LoRA in the keys that diffusers writes."""
    tensors = {}
    for name, part in lora.items():
        tensors[f"unet.{name}.lora.down.weight"] = part.down
        tensors[f"unet.{name}.lora.up.weight"] = part.up
    return tensors


def lora_of(tensors: dict[str, Tensor]) -> dict[str, LowRank]:
    """The LoRA by projection of what :func:`lora_tensors` made."""
    ending = ".lora.down.weight"
    names = [name.removeprefix("unet.").removesuffix(ending) for name in tensors if name.endswith(ending)]
    return {
        name: LowRank(tensors[f"unet.{name}.lora.up.weight"], tensors[f"unet.{name}{ending}"])
        for name in names
    }
