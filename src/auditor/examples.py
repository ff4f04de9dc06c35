"""Reads a user's folder of captioned images: ``metadata.jsonl`` with ``file_name`` and ``text``, as Hugging Face's imagefolder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from auditor.errors import UsageError

_FEWEST = 10


def read_captioned_folder(folder: Path, size: int) -> tuple[Tensor, list[str]]:
    """Images (uint8, (N, 3, size, size), cropped to the centre) and captions of ``folder``, in the file's order.

    Raises :class:`UsageError` with file and line where something is missing or lies outside the folder.
    """
    metadata = folder / "metadata.jsonl"
    if not metadata.is_file():
        raise UsageError(f"{folder} holds no metadata.jsonl; write one line {{'file_name': …, 'text': …}} for each image.")
    images, captions = [], []
    try:
        text = metadata.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{metadata} is not UTF-8.") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            path, caption = folder / entry["file_name"], entry["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{metadata}:{number}: expected an object with file_name and text.") from error
        if not isinstance(caption, str) or not path.resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{metadata}:{number}: text must be a string and file_name must lie inside the folder.")
        try:
            with Image.open(path) as picture:
                fitted = ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.LANCZOS)
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise UsageError(f"{metadata}:{number}: {entry['file_name']} cannot be read as an image.") from error
        images.append(torch.from_numpy(np.array(fitted)).permute(2, 0, 1))
        captions.append(caption)
    if len(captions) < _FEWEST:
        raise UsageError(f"{folder} holds {len(captions)} captioned images; at least {_FEWEST} are needed, a fifth of them to be held out.")
    return torch.stack(images), captions
