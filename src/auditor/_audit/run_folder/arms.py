"""Keeps trained arms: the tensors that a probe changed or added, named by the digest of all the weights that
draw.

A resumed run and a replay put them back instead of training again, and check the digest when they do.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import LoraConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from auditor._diffusion.model import DiffusionModel, digest_of_weights, plain
from auditor._diffusion.original import Change, Original
from auditor._files.digest import sha256_json
from auditor._files.whole_files import write_whole
from auditor.errors import PluginError

_SPARE = 2  # a file is kept only where the disk has this many times its size


def digest_of_arm(model: DiffusionModel, original: Original | None = None) -> str:
    """sha256 of the weights of every part; those that ``original`` lent are not computed again."""
    if original is not None:
        return sha256_json(original.digest_of(model))
    return sha256_json([digest_of_weights(module) for module in model.modules.values()])


def adapters_of(model: DiffusionModel) -> dict[str, Any]:
    """peft's configurations of the adapters that are laid on a denoiser, as JSON."""
    configs = getattr(model.denoiser, "peft_config", {})
    adapters = {name: config.to_dict() for name, config in configs.items()}
    found: dict[str, Any] = json.loads(json.dumps(adapters, sort_keys=True, default=plain))
    return found


def put_into(model: DiffusionModel, tensors: Mapping[str, Tensor], adapters: Mapping[str, Any]) -> None:
    """Give ``model``, a copy of the erased one, what an update changed or added. Whatever is wrong with it
    may be raised."""
    for name, config in adapters.items():
        model.denoiser.add_adapter(LoraConfig(**config), adapter_name=name)
    for part, module in model.modules.items():
        own = {
            name.removeprefix(f"{part}."): value
            for name, value in tensors.items()
            if name.startswith(f"{part}.")
        }
        if own or (adapters and part == model.family.denoiser):
            module.load_state_dict(own, strict=False)
            module.eval().requires_grad_(False)
    if any(name.startswith(f"{part}.") for name in tensors for part in model.family.text):
        model.forget_text_states()


def rebuilt(original: Original, made: DiffusionModel, change: Change, digest: str) -> DiffusionModel:
    """The arm as it is drawn: the tensors that were found in ``made`` put into a fresh copy of the erased
    model.

    ``digest`` is that of ``made``. Whatever else a plugin left on the model it was given (a module's setting,
    a configuration, a buffer that is no tensor of its state, a changed tokenizer) is not in it. Raises
    :class:`PluginError` where the copy does not hold the same weights.
    """
    tensors = {name: value.detach() for name, value in change.tensors.items()}
    adapted = [made.family.denoiser] if adapters_of(made) else []
    model = original.copy([name.split(".")[0] for name in tensors] + adapted)
    put_into(model, tensors, adapters_of(made))
    if digest_of_arm(model, original) != digest:
        raise PluginError(
            "What the update left behind cannot be put into a fresh copy of the erased model; a model state "
            "is its weights alone."
        )
    return model


class ArmStore:
    """``arms/<digest>/changed.safetensors`` of a run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, digest: str) -> Path:
        """Where the arm with these weights is kept, if it is."""
        return self._folder / digest / "changed.safetensors"

    def keep(self, model: DiffusionModel, changed: Mapping[str, Tensor], digest: str) -> bool:
        """Write what makes ``model`` differ from the erased one. False where the disk has no room to
        spare."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in changed.items()}
        content, path = (
            save(tensors, {"adapters": json.dumps(adapters_of(model), sort_keys=True)}),
            self.path(digest),
        )
        if path.exists() and path.read_bytes() == content:
            return True
        if shutil.disk_usage(self._nearest()).free < _SPARE * len(content):
            return False
        write_whole(path, content)
        return True

    def restore(self, model: DiffusionModel, digest: str) -> bool:
        """Give ``model``, a copy of the erased one, the weights that were kept under ``digest``. False
        where that cannot be done."""
        path = self.path(digest)
        if not path.exists():
            return False
        try:
            with safe_open(path, framework="pt") as file:
                adapters = json.loads(file.metadata()["adapters"])
                # safe_open is no mapping
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            put_into(model, tensors, adapters)
        # whatever was written over it
        except (
            SafetensorError,
            AttributeError,
            ValueError,
            KeyError,
            TypeError,
            RuntimeError,
        ):
            return False
        return digest_of_arm(model) == digest

    def _nearest(self) -> Path:
        return next(folder for folder in (self._folder, *self._folder.parents) if folder.exists())
