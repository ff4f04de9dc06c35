"""sha256 of records, files and folders: how things are named and how changes are noticed."""

from __future__ import annotations

import hashlib
import json
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
    """sha256 of a file, or of a folder's files and their names, at any depth; empty where there is neither."""
    if path.is_dir():
        return sha256_json([[str(each.relative_to(path)), sha256_file(each)] for each in sorted(path.rglob("*")) if each.is_file()])
    return sha256_file(path) if path.is_file() else ""


def seed_of(*parts: str | int) -> int:
    """A 63-bit seed from the sha256 of ``parts``."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:8]) >> 1
