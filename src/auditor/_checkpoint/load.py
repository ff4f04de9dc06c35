"""Loads an admitted checkpoint: safetensors only, local files only, allow-listed classes, hashed again
after loading (safety.md S16)."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors.torch import load
from torch import Tensor, nn

from auditor._checkpoint.adapters import ADAPTER_CONFIG
from auditor._checkpoint.admit import Checkpoint
from auditor._checkpoint.folder import schedule_of
from auditor._checkpoint.names import shapes_of
from auditor._checkpoint.overlay import read_overlay, taken
from auditor._diffusion.model import DiffusionModel
from auditor._files.json_files import parse_json
from auditor._files.safetensors_header import header_of
from auditor._process.device import best_device, refuse_true_size
from auditor.errors import RefusedError
from auditor.families.refusing import refusing

_TENSOR_CORES = (7, 0)  # of a GPU that computes in float16 faster than in float32, and has no bfloat16
_PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_model(
    checkpoint: Checkpoint, dtype: str = "auto", device: torch.device | None = None
) -> DiffusionModel:
    """Load ``checkpoint`` for inference and training, its weights as float32; ``dtype``: see
    :class:`~auditor.policy.Sampler`.

    No library chooses a file of weights: each is read once into memory, compared with the digest it was
    admitted under, and its tensors are put into a model built from the configuration. Raises
    :class:`RefusedError` where the weights do not fit the declared architecture, or changed on disk since
    they were admitted. Raises :class:`UsageError` where its size asks for a GPU and there is none, unless
    ``device`` is given.
    """
    if device is None:
        refuse_true_size(checkpoint.source, checkpoint.parameters)
    device, family = device or best_device(), checkpoint.family
    with quiet(), refusing(f"{checkpoint.source} does not load as {family.title}"):
        origin = checkpoint.base or checkpoint
        modules = {component: _built(origin, component) for component in family.stems}
        if checkpoint.overlay is not None:
            _lay_over(checkpoint, modules)
        words = family.read_words(
            checkpoint.source, lambda name: _admitted(origin, name) if name in origin.files else None
        )
        tokenizers = words.tokenizers()
        for name in ("model_index.json", "scheduler/scheduler_config.json"):
            _admitted(origin, name)
        schedule = schedule_of(family, origin.folder) | {"prediction_type": checkpoint.prediction}
    for part in modules.values():
        for module in part.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # a publisher's dropout would act on the probe's training alone
        if not all(bool(value.isfinite().all()) for value in part.parameters()):
            raise RefusedError(f"{checkpoint.source} has values beyond float32.")
        part.to(device).eval().requires_grad_(False)
    parts = modules | tokenizers
    model = DiffusionModel(parts, family, schedule, checkpoint.digest, precision_of(dtype, device))
    with quiet(), refusing(f"{checkpoint.source} loads and does not draw"):
        _try(model)
    return model


def _try(model: DiffusionModel) -> None:
    """One step from a prompt to a picture of the smallest size: whatever a configuration breaks, breaks
    here."""
    shape, size = model.family.smallest(model.parts)
    latents = torch.zeros(1, *shape, device=model.device)
    with torch.no_grad():
        predicted = model.predict(latents, torch.tensor(1, device=model.device), model.condition([""]))
    if predicted.shape != latents.shape:
        raise ValueError(
            f"the {model.family.denoiser} predicts {tuple(predicted.shape)} for latents of "
            f"{tuple(latents.shape)}"
        )
    model.decode(predicted)
    model.encode(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    model.forget_text_states()  # in whose company a prompt is encoded decides its last bits


def precision_of(dtype: str, device: torch.device) -> torch.dtype:
    """What a denoiser computes in on a device; ``dtype``: see :class:`~auditor.policy.Sampler`."""
    if dtype != "auto":
        return _PRECISIONS[dtype]
    if device.type != "cuda":
        return torch.float32
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16 if torch.cuda.get_device_capability(device) >= _TENSOR_CORES else torch.float32


def precision_name(model: DiffusionModel) -> str:
    """What ``model`` computes in, for people and for digests: that of its denoiser, and whether the
    convolutions of what stays float32 use a GPU's TF32."""
    name = str(model.precision).removeprefix("torch.")
    return f"{name} and tf32" if model.device.type == "cuda" and torch.backends.cudnn.allow_tf32 else name


def in_precision(model: DiffusionModel, dtype: str) -> DiffusionModel:
    """``model``, its denoiser computing in what a sampler's ``dtype`` says; the weights are the same
    tensors."""
    precision = precision_of(dtype, model.device)
    return model if precision is model.precision else replace(model, precision=precision)


def _tensors(checkpoint: Checkpoint, names: Iterable[str]) -> dict[str, Tensor]:
    """The tensors of admitted files, as float32, from bytes that have the digest they were admitted under."""
    found: dict[str, Tensor] = {}
    for name in names:
        tensors = load(_admitted(checkpoint, name))
        found |= {
            key: value.float() if value.is_floating_point() else value for key, value in tensors.items()
        }
    return found


def _admitted(checkpoint: Checkpoint, name: str) -> bytes:
    """The bytes of a file, read once and found to be the ones that were admitted."""
    content = checkpoint.paths[name].read_bytes()
    if hashlib.sha256(content).hexdigest() != checkpoint.files[name]:
        raise RefusedError(f"{checkpoint.source} changed on disk while it was loaded: {name}.")
    return content


def _built(checkpoint: Checkpoint, component: str) -> Any:
    """One component: built from its configuration without weights, then filled with exactly the admitted
    tensors."""
    family = checkpoint.family
    config = parse_json(f"{component}/config.json", _admitted(checkpoint, f"{component}/config.json"))
    with init_empty_weights(include_buffers=False):
        model = family.build(component, config)
    wanted = {family.plain_name(name): name for name in model.state_dict() if not family.is_buffer(name)}
    held = {
        family.plain_name(name): value
        for name, value in _tensors(checkpoint, checkpoint.weights_of(component)).items()
        if not family.is_unused(component, name, config)
    }
    if held.keys() != wanted.keys():
        raise RefusedError(
            f"{checkpoint.source}: {component} does not hold the tensors of its declared architecture."
        )
    model.load_state_dict({wanted[name]: value for name, value in held.items()}, strict=False, assign=True)
    if any(value.is_meta for value in model.parameters()):
        raise RefusedError(f"{checkpoint.source}: {component} was not filled whole.")
    return model


def _lay_over(checkpoint: Checkpoint, modules: dict[str, Any]) -> None:
    """Put what one file holds into the base's parts: tensors of its own, or an adapter's changes."""
    assert checkpoint.overlay is not None and checkpoint.base is not None
    content = _admitted(checkpoint, checkpoint.overlay.name)
    held, header = load(content), header_of(checkpoint.overlay.name, content)
    config = None
    if ADAPTER_CONFIG in checkpoint.files:
        config = parse_json(ADAPTER_CONFIG, _admitted(checkpoint, ADAPTER_CONFIG))
    declared = {part: shapes_of(module) for part, module in modules.items()}
    family = checkpoint.family
    overlay = read_overlay(
        family, checkpoint.source, header, config, declared, lambda name: float(held[name].flatten()[0])
    )
    if overlay.adapter is not None:
        overlay.adapter.merge(modules, held)
        return
    for part, own in overlay.tensors.items():
        module = modules[part]
        names = {family.plain_name(name): name for name in declared[part]}
        tensors = {
            names[name]: taken(piece, held, declared[part][names[name]]) for name, piece in own.items()
        }
        found = module.load_state_dict(tensors, strict=False)
        if found.unexpected_keys:
            raise RefusedError(f"{checkpoint.source}: {part} does not hold the tensors that were admitted.")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' progress bars and hints out of our terminal while something loads."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    levels = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
    diffusers_logging.set_verbosity(logging.ERROR)
    transformers_logging.set_verbosity(logging.ERROR)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(levels[0])
        transformers_logging.set_verbosity(levels[1])
        diffusers_logging.enable_progress_bar()
        transformers_logging.enable_progress_bar()
