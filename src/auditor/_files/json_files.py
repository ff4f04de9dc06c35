"""JSON files of a checkpoint: small, ordinary, objects without NaN."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from auditor.errors import RefusedError

LARGEST = 4 * 2**20
"""Bytes of a JSON or text file that is read; a tokenizer's vocabulary takes about a quarter."""


def read_json(path: Path, *, constants: bool = False) -> dict[str, Any]:
    """A JSON object from a file of the checkpoint; :class:`RefusedError` where it is none, too large or
    too deep. With ``constants`` it may hold NaN and infinities, which are no JSON and which Python writes."""
    name = f"{path.parent.name}/{path.name}"
    try:
        if not path.is_file():
            raise RefusedError(f"{name} cannot be read: it is missing, or no ordinary file.")
        if path.stat().st_size > LARGEST:
            raise RefusedError(f"{name} is larger than {LARGEST} bytes; no configuration is.")
        content = path.read_bytes()
    except OSError as error:
        raise RefusedError(f"{name} cannot be read: {error.strerror}.") from error
    return parse_json(name, content, constants=constants)


def parse_json(name: str, content: bytes, *, constants: bool = False) -> dict[str, Any]:
    """The same from bytes that were read before."""
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=None if constants else _refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{name} cannot be read as JSON ({type(error).__name__}).") from error
    if not isinstance(value, dict):
        raise RefusedError(f"{name} is not a JSON object.")
    return value


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number")
