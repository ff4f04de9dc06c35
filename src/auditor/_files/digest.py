"""sha256 of records, files and folders: how things are named and how changes are noticed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

_BLOCK = 1 << 20


def sha256_json(value: Any) -> str:
    """sha256 of ``value`` as canonical JSON (sorted keys, no spaces, no NaN)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """sha256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_tree(path: Path) -> str:
    """sha256 of a file, or of a folder's files and their names, at any depth and through links; empty
    where there is neither."""
    if not path.is_dir():
        return sha256_file(path) if path.is_file() else ""
    found, seen = list[list[str]](), set[str]()
    for folder, folders, files in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(real)
        for each in (Path(folder, name) for name in files):
            found.append([os.fsencode(each.relative_to(path)).hex(), sha256_tree(each)])
    return sha256_json(sorted(found))


def seed_of(*parts: str | int) -> int:
    """A 63-bit seed from the sha256 of ``parts``."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:8]) >> 1
