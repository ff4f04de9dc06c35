"""Reads a user's folder of captioned images, as Hugging Face's imagefolder: ``metadata.jsonl`` or
``metadata.csv`` with ``file_name`` and ``text`` (or ``caption``).

The folder may be somebody else's, and what it holds must be what the probe trains on: a picture or a line
that is unusable is refused by its name, never left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from auditor._files.images import is_flat
from auditor._files.pictures import read_picture, refuse_no_file
from auditor._files.tables import read_table
from auditor._process.watchdog import WATCHDOG
from auditor.errors import UsageError

_FEWEST = 10
_MOST = 100_000
_LARGEST_METADATA = 64 * 2**20
_SMALLEST = 8  # pixels a side, and an eighth of the size that is drawn: one a pixel of the latents
_FILE = "file_name"
_CAPTIONS = ("text", "caption")


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
    root = folder.resolve()
    for where, entry in _lines(folder):
        name, captions = entry.get(_FILE), [entry[key] for key in _CAPTIONS if key in entry]
        if name is None or not captions:
            held = ", ".join(map(repr, list(entry)[:8])) or "nothing"
            raise UsageError(
                f"{where}: expected an object with file_name and text (or caption); it has {held}."
            )
        if len(captions) > 1 and captions[0] != captions[1]:
            raise UsageError(f"{where}: text and caption say two things; leave one of them out.")
        caption = captions[0]
        if (
            not isinstance(caption, str)
            or not isinstance(name, str)
            or "\0" in name
            or not _is_inside(root, folder / name)
        ):
            raise UsageError(f"{where}: text must be a string and file_name must lie inside the folder.")
        yield where, folder / name, caption


def _lines(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """File and line, and what it says of a picture, by column."""
    found = [path for path in (folder / "metadata.jsonl", folder / "metadata.csv") if path.exists()]
    if len(found) != 1:
        said = (
            "both metadata.jsonl and metadata.csv; leave one"
            if found
            else "no metadata.jsonl or metadata.csv"
        )
        raise UsageError(
            f"{folder} holds {said}; write one line {{'file_name': …, 'text': …}} for each image, or a table "
            "with these columns."
        )
    (metadata,) = found
    refuse_no_file(str(metadata), metadata, _LARGEST_METADATA)
    entries = _rows_of(metadata) if metadata.suffix == ".csv" else _objects_in(metadata)
    for number, entry in enumerate(entries):
        if number >= _MOST:
            raise UsageError(f"{metadata} has more than {_MOST} lines, which is the most that are read.")
        yield entry


def _rows_of(metadata: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        table = read_table(metadata, (_FILE,), _CAPTIONS)
    except ValueError as error:
        raise UsageError(f"{error}.") from error
    for row in table.rows:
        yield f"{metadata}:{row.line}", dict(row.cells)


def _objects_in(metadata: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        lines = metadata.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{metadata} is not UTF-8; save it as UTF-8.") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{metadata}:{number}"
        try:
            entry = json.loads(line, object_pairs_hook=_each_key_once)
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"{where}: expected an object with file_name and text (or caption), each once."
            ) from error
        if not isinstance(entry, dict):
            raise UsageError(f"{where}: expected an object with file_name and text (or caption).")
        yield where, entry


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _is_inside(root: Path, path: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a link in a circle
        return False


def _picture(where: str, path: Path, size: int) -> Tensor:
    picture = read_picture(where, path)
    least = max(_SMALLEST, size // 8)
    if min(picture.size) < least:
        pixels = f"{picture.width} x {picture.height} pixels"
        raise UsageError(f"{where}: {path.name} has {pixels}; at least {least} a side are needed.")
    fitted = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    image = torch.from_numpy(np.array(fitted)).permute(2, 0, 1)
    if is_flat(image):
        raise UsageError(f"{where}: {path.name} is one flat colour; leave it out.")
    return image
