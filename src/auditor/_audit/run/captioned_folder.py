"""Reads a user's folder of captioned images: ``metadata.jsonl`` with ``file_name`` and ``text``, as Hugging
Face's imagefolder.

The folder may be somebody else's: nothing but ordinary files of three formats is opened, and none before its
size was looked at (S19).
"""

from __future__ import annotations

import json
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from auditor._process.watchdog import WATCHDOG
from auditor.errors import UsageError

_FEWEST = 10
_MOST = 100_000
_LARGEST_METADATA = 64 * 2**20
_LARGEST_FILE = 64 * 2**20
_MOST_PIXELS = 50 * 10**6
_FORMATS = ("PNG", "JPEG", "WEBP")


def read_captioned_folder(folder: Path, size: int) -> tuple[Tensor, list[str]]:
    """Images (uint8, (N, 3, size, size), cropped to the centre) and captions of ``folder``, in the file's
    order.

    Raises :class:`UsageError` with file and line where something is missing, no ordinary picture, or lies
    outside the folder.
    """
    with WATCHDOG.watch(f"Reading the training images in {folder}"):
        images, captions = [], list[str]()
        for where, path, caption in _entries(folder):
            images.append(_picture(where, path, size))
            captions.append(caption)
            WATCHDOG.alive()
    if len(captions) < _FEWEST:
        raise UsageError(
            f"{folder} holds {len(captions)} captioned images; at least {_FEWEST} are needed, a fifth of "
            "them to be held out."
        )
    return torch.stack(images), captions


def _entries(folder: Path) -> Iterator[tuple[str, Path, str]]:
    """(file and line, picture, caption) of every line."""
    metadata = folder / "metadata.jsonl"
    if not metadata.exists():
        raise UsageError(
            f"{folder} holds no metadata.jsonl; write one line {{'file_name': …, 'text': …}} for each image."
        )
    _refuse_no_file(str(metadata), metadata, _LARGEST_METADATA)
    try:
        lines = metadata.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{metadata} is not UTF-8.") from error
    if len(lines) > _MOST:
        raise UsageError(f"{metadata} has {len(lines)} lines; at most {_MOST} are read.")
    root = folder.resolve()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{metadata}:{number}"
        try:
            entry = json.loads(line)
            name, caption = entry["file_name"], entry["text"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(f"{where}: expected an object with file_name and text.") from error
        if (
            not isinstance(caption, str)
            or not isinstance(name, str)
            or "\0" in name
            or not _is_inside(root, folder / name)
        ):
            raise UsageError(f"{where}: text must be a string and file_name must lie inside the folder.")
        yield where, folder / name, caption


def _is_inside(root: Path, path: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a link in a circle
        return False


def _picture(where: str, path: Path, size: int) -> Tensor:
    _refuse_no_file(where, path, _LARGEST_FILE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            with Image.open(path, formats=_FORMATS) as picture:
                if picture.width * picture.height > _MOST_PIXELS:
                    pixels = f"{picture.width} x {picture.height} pixels"
                    raise UsageError(f"{where}: {path.name} has {pixels}; at most {_MOST_PIXELS} are read.")
                fitted = ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.LANCZOS)
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:  # Pillow's words for broken files
        raise UsageError(
            f"{where}: {path.name} cannot be read as an image ({', '.join(_FORMATS)} are)."
        ) from error
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1)


def _refuse_no_file(where: str, path: Path, largest: int) -> None:
    """Raise :class:`UsageError` where ``path`` is no ordinary file, or larger than any that is read: it is
    not opened."""
    try:
        facts = path.stat()
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its link leads in a circle"
        raise UsageError(f"{where}: {path.name} cannot be read: {reason}.") from error
    if not stat.S_ISREG(facts.st_mode):
        raise UsageError(f"{where}: {path.name} is no ordinary file; it is not opened.")
    if facts.st_size > largest:
        raise UsageError(f"{where}: {path.name} has {facts.st_size} bytes; at most {largest} are read.")
