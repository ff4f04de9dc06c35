"""Loads an admitted checkpoint: safetensors only, local files only, allow-listed classes, hashed again
after loading (safety.md S16)."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors.torch import load
from torch import Tensor, nn

from auditor._checkpoint.admit import Checkpoint, Form
from auditor._checkpoint.architecture import build, refusing
from auditor._checkpoint.names import is_buffer, plain_name
from auditor._checkpoint.scan import hash_files
from auditor._checkpoint.vocabulary import read_vocabulary
from auditor._diffusion.lora import merge_lora
from auditor._diffusion.model import DiffusionModel
from auditor._files.json_files import parse_json
from auditor._files.safetensors_header import read_header
from auditor.errors import RefusedError
from auditor.families.stable_diffusion.components import NOISE_SCHEDULE, SINGLE_FILE_PARTS, WEIGHTS
from auditor.families.stable_diffusion.family import STABLE_DIFFUSION

_PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def best_device() -> torch.device:
    """Where models run: a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_model(
    checkpoint: Checkpoint, dtype: str = "auto", device: torch.device | None = None
) -> DiffusionModel:
    """Load ``checkpoint`` for inference and training, its weights as float32; ``dtype``: see
    :class:`~auditor.policy.Sampler`.

    No library chooses a file of weights: each is read once into memory, compared with the digest it was
    admitted under, and its tensors are put into a model built from the configuration. Raises
    :class:`RefusedError` where the weights do not fit the declared architecture, or changed on disk since
    they were admitted.
    """
    device = device or best_device()
    with quiet(), refusing(f"{checkpoint.source} does not load as Stable Diffusion"):
        origin = checkpoint.base or checkpoint
        if checkpoint.form is Form.SINGLE:
            unet, vae, text_encoder = _single(checkpoint)
        else:
            unet, vae, text_encoder = (_built(origin, component) for component in WEIGHTS)
            if checkpoint.overlay is not None:
                _lay_over(checkpoint, unet)
        vocabulary = read_vocabulary(
            checkpoint.source,
            lambda name: (
                _admitted(origin, f"tokenizer/{name}") if f"tokenizer/{name}" in origin.files else None
            ),
        )
        tokenizer = vocabulary.tokenizer()
        scheduler = parse_json("scheduler_config.json", _admitted(origin, "scheduler/scheduler_config.json"))
    if checkpoint.form is Form.SINGLE:
        _refuse_changed(checkpoint)
    for part in (unet, vae, text_encoder):
        for module in part.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # a publisher's dropout would act on the probe's training alone
        if not all(bool(value.isfinite().all()) for value in part.parameters()):
            raise RefusedError(f"{checkpoint.source} has values beyond float32.")
        part.to(device).eval().requires_grad_(False)
    noise = {key: value for key, value in scheduler.items() if key in NOISE_SCHEDULE}
    parts = {"unet": unet, "vae": vae, "text_encoder": text_encoder, "tokenizer": tokenizer}
    model = DiffusionModel(parts, STABLE_DIFFUSION, noise, checkpoint.digest, precision_of(dtype, device))
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
    """What a UNet computes in on a device; ``dtype``: see :class:`~auditor.policy.Sampler`."""
    if dtype != "auto":
        return _PRECISIONS[dtype]
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def _refuse_changed(checkpoint: Checkpoint) -> None:
    files, paths = (checkpoint.files, checkpoint.paths)
    if checkpoint.base is not None:
        files, paths = files | checkpoint.base.files, paths | checkpoint.base.paths
    now = hash_files(paths)
    changed = [name for name, digest in files.items() if now[name] != digest]
    if changed:
        raise RefusedError(f"{checkpoint.source} changed on disk while it was loaded: {', '.join(changed)}.")


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
    config = parse_json(f"{component}/config.json", _admitted(checkpoint, f"{component}/config.json"))
    with init_empty_weights(include_buffers=False):
        model = build(component, config)
    wanted = {plain_name(name): name for name in model.state_dict() if not is_buffer(name)}
    held = {
        plain_name(name): value
        for name, value in _tensors(checkpoint, checkpoint.weights_of(component)).items()
        if not is_buffer(name)
    }
    if held.keys() != wanted.keys():
        raise RefusedError(
            f"{checkpoint.source}: {component} does not hold the tensors of its declared architecture."
        )
    model.load_state_dict({wanted[name]: value for name, value in held.items()}, strict=False, assign=True)
    if any(value.is_meta for value in model.parameters()):
        raise RefusedError(f"{checkpoint.source}: {component} was not filled whole.")
    return model


def _single(checkpoint: Checkpoint) -> tuple[Any, Any, Any]:
    """The parts of a single file in the original Stable Diffusion's names, with the base's configurations."""
    from diffusers import StableDiffusionPipeline  # takes a second to import, and few checkpoints need it

    assert checkpoint.overlay is not None
    pipeline = StableDiffusionPipeline.from_single_file(
        str(checkpoint.overlay),
        config=str(checkpoint.folder),
        torch_dtype=torch.float32,
        local_files_only=True,
        safety_checker=None,
    )
    parts = {"unet": pipeline.unet, "vae": pipeline.vae, "text_encoder": pipeline.text_encoder}
    tensors = read_header(checkpoint.overlay).tensors
    for component, prefix in SINGLE_FILE_PARTS.items():
        held = sum(
            tensor.count
            for tensor in tensors
            if tensor.name.startswith(prefix) and not is_buffer(tensor.name)
        )
        used = sum(
            value.numel() for name, value in parts[component].state_dict().items() if not is_buffer(name)
        )
        if any(value.is_meta for value in parts[component].state_dict().values()) or held < used:
            raise RefusedError(
                f"{checkpoint.source}: {component} has {held} of the {used} values that the base's "
                "configuration declares."
            )
        # into private memory: what follows on disk changes nothing
        parts[component] = copy.deepcopy(parts[component])
    return parts["unet"], parts["vae"], parts["text_encoder"]


def _lay_over(checkpoint: Checkpoint, unet: Any) -> None:
    """Put a UNet's own tensors, some changed ones, or a LoRA into the base's UNet."""
    held = _tensors(checkpoint, checkpoint.files)
    if checkpoint.form is not Form.LORA:
        found = unet.load_state_dict(held, strict=checkpoint.form is Form.UNET)
        if found.unexpected_keys:
            raise RefusedError(
                f"{checkpoint.source} holds {len(found.unexpected_keys)} tensors that the base's UNet has "
                "not."
            )
        return
    (name,) = checkpoint.files
    content = _admitted(checkpoint, name)
    header = parse_json(name, content[8 : 8 + int.from_bytes(content[:8], "little")])
    try:
        merge_lora(unet, held, header.get("__metadata__", {}))
    except ValueError as error:
        raise RefusedError(f"{checkpoint.source} {error}.") from error


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
