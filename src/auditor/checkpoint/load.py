"""Loads an admitted checkpoint: safetensors only, local files only, allow-listed classes, hashed again after loading (safety.md S16)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from auditor.checkpoint.admit import Checkpoint, Form
from auditor.checkpoint.folder import UNET_PARTS
from auditor.checkpoint.header import read_header
from auditor.checkpoint.scan import hash_files
from auditor.diffusion.model import TextToImage
from auditor.errors import RefusedError

_PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_SINGLE = {"unet": "model.diffusion_model.", "vae": "first_stage_model.", "text_encoder": "cond_stage_model."}


def best_device() -> torch.device:
    """Where models run: a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_model(checkpoint: Checkpoint, dtype: str = "auto", device: torch.device | None = None) -> TextToImage:
    """Load ``checkpoint`` for inference and training, its weights as float32; ``dtype``: see :class:`~auditor.policy.Sampler`.

    Raises :class:`RefusedError` where the weights do not fit the declared architecture, or changed on disk since they were
    admitted.
    """
    device, kind = device or best_device(), torch.float32
    with _quiet():
        try:
            if checkpoint.form is Form.SINGLE:
                unet, vae, text_encoder = _single(checkpoint, kind)
            else:
                unet = _whole(UNet2DConditionModel, checkpoint, "unet", kind)
                vae = _whole(AutoencoderKL, checkpoint, "vae", kind)
                text_encoder = _whole(CLIPTextModel, checkpoint, "text_encoder", kind)
                if checkpoint.overlay is not None:
                    _lay_over(checkpoint, unet)
            tokenizer = CLIPTokenizer.from_pretrained(checkpoint.folder / "tokenizer", local_files_only=True)
            scheduler = DDPMScheduler.from_pretrained(checkpoint.folder / "scheduler", local_files_only=True)
        except RefusedError:
            raise
        except Exception as error:
            # a hostile configuration can make the libraries raise anything
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise RefusedError(f"{checkpoint.source} does not load as Stable Diffusion: {reason}") from error
    _refuse_changed(checkpoint)
    for part in (unet, vae, text_encoder):
        part.to(device).eval().requires_grad_(False)
    return TextToImage(unet, vae, text_encoder, tokenizer, dict(scheduler.config), checkpoint.digest, _precision(dtype, device))


def _precision(dtype: str, device: torch.device) -> torch.dtype:
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


def _whole(kind: Any, checkpoint: Checkpoint, component: str, dtype: torch.dtype) -> Any:
    """One component with every weight read from the file: none missing (left at random values), none left over."""
    half = checkpoint.folder / component
    variant = None if any(half.glob("*model.safetensors*")) else "fp16"
    model, found = kind.from_pretrained(
        checkpoint.folder / component,
        torch_dtype=dtype,
        variant=variant,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = [str(name) for name in found.get(what) or () if "position_ids" not in str(name)]
        if names:
            problem = f"{len(names)} {what.removesuffix('_keys')} tensors for its declared architecture, the first {names[0]}"
            raise RefusedError(f"{checkpoint.source}: {component} has {problem}.")
    return model


def _single(checkpoint: Checkpoint, dtype: torch.dtype) -> tuple[Any, Any, Any]:
    """The parts of a single file in the original Stable Diffusion's names, with the base's configurations."""
    pipeline = StableDiffusionPipeline.from_single_file(
        str(checkpoint.overlay), config=str(checkpoint.folder), torch_dtype=dtype, local_files_only=True, safety_checker=None
    )
    parts = {"unet": pipeline.unet, "vae": pipeline.vae, "text_encoder": pipeline.text_encoder}
    assert checkpoint.overlay is not None
    tensors = read_header(checkpoint.overlay).tensors
    for component, prefix in _SINGLE.items():
        held = sum(tensor.count for tensor in tensors if tensor.name.startswith(prefix) and "position_ids" not in tensor.name)
        used = sum(value.numel() for name, value in parts[component].state_dict().items() if "position_ids" not in name)
        if any(value.is_meta for value in parts[component].state_dict().values()) or held < used:
            raise RefusedError(f"{checkpoint.source}: {component} has {held} of the {used} values that the base's configuration declares.")
    return parts["unet"], parts["vae"], parts["text_encoder"]


def _lay_over(checkpoint: Checkpoint, unet: Any) -> None:
    """Put a UNet's own tensors, some changed ones, or a LoRA into the base's UNet."""
    assert checkpoint.overlay is not None
    if checkpoint.form is not Form.LORA:
        found = unet.load_state_dict(load_file(checkpoint.overlay), strict=checkpoint.form is Form.UNET)
        if found.unexpected_keys:
            raise RefusedError(f"{checkpoint.source} holds {len(found.unexpected_keys)} tensors that the base's UNet has not.")
        return
    held = {f"unet.{name}" if name.split(".")[0] in UNET_PARTS else name: value for name, value in load_file(checkpoint.overlay).items()}
    tensors, alphas = StableDiffusionPipeline.lora_state_dict(held, unet_config=unet.config, return_alphas=True)
    other = [name for name in tensors if not name.startswith("unet.")]
    if other:
        raise RefusedError(
            f"{checkpoint.source} changes more than the UNet ({len(other)} tensors, the first {other[0]}); only the UNet's is audited."
        )
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    unet.load_lora_adapter(tensors, network_alphas=alphas, prefix="unet")
    unet.fuse_lora()
    unet.unload_lora()
    if all(torch.equal(value, before[name]) for name, value in unet.state_dict().items()):
        raise RefusedError(f"{checkpoint.source} changes nothing in {checkpoint.folder.name}: no layer of the base has its names.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
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
