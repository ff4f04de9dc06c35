"""Loads an admitted checkpoint: safetensors only, local files only, allow-listed classes, hashed again after loading."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from auditor.checkpoint.admit import Checkpoint
from auditor.diffusion.model import TextToImage
from auditor.digest import sha256_file
from auditor.errors import RefusedError

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_model(checkpoint: Checkpoint, dtype: str = "auto") -> TextToImage:
    """Load ``checkpoint`` for inference and training on the best device here.

    Raises :class:`RefusedError` where the weights do not fit the declared architecture, or changed on disk since they were
    admitted.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = torch.float32 if dtype == "auto" else _DTYPES[dtype]
    folder = checkpoint.folder
    with _quiet():
        try:
            unet = _whole(UNet2DConditionModel, checkpoint, "unet", kind)
            vae = _whole(AutoencoderKL, checkpoint, "vae", kind)
            text_encoder = _whole(CLIPTextModel, checkpoint, "text_encoder", kind)
            tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
            scheduler = DDPMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
        except RefusedError:
            raise
        except Exception as error:
            # a hostile configuration can make the libraries raise anything
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RefusedError(f"{checkpoint.source} does not load as Stable Diffusion: {reason}") from error
    changed = [name for name, digest in checkpoint.files.items() if sha256_file(folder / name) != digest]
    if changed:
        raise RefusedError(f"{checkpoint.source} changed on disk while it was loaded: {', '.join(changed)}.")
    for part in (unet, vae, text_encoder):
        part.to(device).eval().requires_grad_(False)
    return TextToImage(unet, vae, text_encoder, tokenizer, dict(scheduler.config), checkpoint.digest)


def _whole(kind: Any, checkpoint: Checkpoint, component: str, dtype: torch.dtype) -> Any:
    """One component with every weight read from the file: none missing (left at random values), none left over."""
    model, found = kind.from_pretrained(
        checkpoint.folder / component, torch_dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = [str(name) for name in found.get(what) or () if "position_ids" not in str(name)]
        if names:
            problem = f"{len(names)} {what.removesuffix('_keys')} tensors for its declared architecture, the first {names[0]}"
            raise RefusedError(f"{checkpoint.source}: {component} has {problem}.")
    return model


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
