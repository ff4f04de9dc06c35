"""Judges a checkpoint before it is loaded: what is there, whether it is safe to open, and its digest."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from auditor.digest import sha256_file, sha256_json
from auditor.errors import RefusedError, UsageError
from auditor.microworld import checkpoint_folder

_COMPONENTS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "unet": (("UNet2DConditionModel",), "diffusion_pytorch_model.safetensors"),
    "vae": (("AutoencoderKL",), "diffusion_pytorch_model.safetensors"),
    "text_encoder": (("CLIPTextModel",), "model.safetensors"),
    "tokenizer": (("CLIPTokenizer", "CLIPTokenizerFast"), None),
    "scheduler": (("DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "DPMSolverMultistepScheduler"), None),
}
_PREDICTIONS = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class Checkpoint:
    """An admitted checkpoint: where it lies, what it is called, and the digest of every file that loading reads."""

    source: str
    folder: Path
    files: dict[str, str]
    digest: str
    parameters: int


def open_checkpoint(source: str) -> Checkpoint:
    """Resolve ``source`` (``micro`` or a diffusers folder), admit it and take its digest. Nothing is unpickled or loaded.

    Raises :class:`UsageError` where there is nothing to open and :class:`RefusedError` where it is unsafe or malformed.
    """
    folder = _resolve(source)
    index = _read_json(folder / "model_index.json")
    for component, (classes, _) in _COMPONENTS.items():
        declared = index.get(component)
        if not isinstance(declared, list) or len(declared) != 2 or declared[1] not in classes:
            raise RefusedError(
                f"{source}: model_index.json declares {component} = {declared!r}; only {' or '.join(classes)} can be audited."
            )
    if _read_json(folder / "scheduler" / "scheduler_config.json").get("prediction_type", "epsilon") not in _PREDICTIONS:
        raise RefusedError(f"{source}: the scheduler's prediction_type is none of {', '.join(_PREDICTIONS)}.")
    parameters = 0
    for component, (_, weights) in _COMPONENTS.items():
        _refuse_detours(source, folder / component)
        if weights is not None:
            parameters += _admit_weights(source, folder / component / weights)
    files = {path.relative_to(folder).as_posix(): sha256_file(path) for path in _files_that_load(folder)}
    return Checkpoint(source, folder, files, sha256_json(files), parameters)


def _resolve(source: str) -> Path:
    if source == "micro":
        return checkpoint_folder()
    folder = Path(source).expanduser()
    if not folder.exists():
        raise UsageError(f"There is no checkpoint at {source}; give a diffusers folder, or 'micro' for the built-in base.")
    if not folder.is_dir() or not (folder / "model_index.json").is_file():
        raise RefusedError(f"{source} is not a diffusers folder: it holds no model_index.json.")
    for component, (_, weights) in _COMPONENTS.items():
        if weights is not None and not (folder / component / weights).is_file():
            raise RefusedError(f"{source} has no {component}: {component}/{weights} is missing (only safetensors weights are read).")
    return folder


def _refuse_detours(source: str, folder: Path) -> None:
    """Refuse what would make a loader read other files than the ones that were admitted: shard indices, adapters, quantisation."""
    for path in sorted(folder.rglob("*")):
        if path.name.endswith(".index.json") or path.name.startswith("adapter_"):
            problem = f"{folder.name}/{path.name} would load weights from elsewhere"
            raise RefusedError(f"{source}: {problem}; only one whole safetensors file is read.")
    config = folder / "config.json"
    if config.is_file() and "quantization_config" in _read_json(config):
        raise RefusedError(f"{source}: {folder.name}/config.json asks for quantisation; only plain weights can be audited.")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RefusedError(f"{path.parent.name}/{path.name} cannot be read as JSON: {error}.") from error
    if not isinstance(value, dict):
        raise RefusedError(f"{path.parent.name}/{path.name} is not a JSON object.")
    return value


def _files_that_load(folder: Path) -> list[Path]:
    """Configuration, vocabulary and safetensors of the allowed components, sorted."""
    suffixes = {".json", ".txt", ".safetensors"}
    inside = [p for name in _COMPONENTS for p in (folder / name).rglob("*") if p.is_file() and p.suffix in suffixes]
    return sorted([folder / "model_index.json", *inside])


def _admit_weights(source: str, path: Path) -> int:
    """Check every tensor of a safetensors file, one at a time: floating, finite, not constant zero. Returns the number of values."""
    count, alive = 0, False
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                tensor = file.get_tensor(name)
                count += math.prod(tensor.shape)
                if tensor.is_floating_point():
                    if not bool(tensor.isfinite().all()):
                        raise RefusedError(f"{source}: the tensor '{name}' of {path.parent.name} holds NaN or infinite values.")
                    alive = alive or bool(tensor.any())
    except SafetensorError as error:
        raise RefusedError(f"{source}: {path.parent.name}/{path.name} is not a sound safetensors file: {error}.") from error
    if not alive:
        raise RefusedError(f"{source}: every weight of {path.parent.name} is zero.")
    return count
