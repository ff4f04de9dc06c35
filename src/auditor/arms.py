"""Keeps trained arms: the tensors that a probe changed or added, named by the digest of the whole UNet's weights.

A resumed run and a replay put them back instead of training again, and check the digest when they do.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from auditor.diffusion.model import digest_of_weights, plain
from auditor.files import write_whole

_SPARE = 2  # a file is kept only where the disk has this many times its size


class ArmStore:
    """``arms/<digest>/unet.safetensors`` of a run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, digest: str) -> Path:
        """Where the arm with these weights is kept, if it is."""
        return self._folder / digest / "unet.safetensors"

    def keep(self, unet: UNet2DConditionModel, pristine: Mapping[str, Tensor], digest: str) -> bool:
        """Write what makes ``unet`` differ from ``pristine`` (the erased UNet's state). False where the disk has no room to spare."""
        changed = {}
        for name, value in unet.state_dict().items():
            before = pristine.get(name.replace(".base_layer", ""))
            if before is None or before.shape != value.shape or not torch.equal(before, value):
                changed[name] = value.detach().cpu().contiguous()
        adapters = {name: config.to_dict() for name, config in getattr(unet, "peft_config", {}).items()}
        content, path = save(changed, {"adapters": json.dumps(adapters, sort_keys=True, default=plain)}), self.path(digest)
        if path.exists() and path.read_bytes() == content:
            return True
        if shutil.disk_usage(self._nearest()).free < _SPARE * len(content):
            return False
        write_whole(path, content)
        return True

    def restore(self, unet: UNet2DConditionModel, digest: str) -> bool:
        """Give ``unet``, in its erased state, the weights that were kept under ``digest``. False where that cannot be done."""
        path = self.path(digest)
        if not path.exists():
            return False
        try:
            with safe_open(path, framework="pt") as file:
                adapters = json.loads(file.metadata()["adapters"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no mapping
            for name, config in adapters.items():
                unet.add_adapter(LoraConfig(**config), adapter_name=name)
            unet.load_state_dict(tensors, strict=False)
        except (SafetensorError, AttributeError, ValueError, KeyError, TypeError, RuntimeError):  # whatever was written over it
            return False
        unet.eval().requires_grad_(False)
        return digest_of_weights(unet) == digest

    def _nearest(self) -> Path:
        return next(folder for folder in (self._folder, *self._folder.parents) if folder.exists())
