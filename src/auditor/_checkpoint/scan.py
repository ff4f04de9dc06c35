"""Hashes weights and looks at every value in one pass over a file, in bounded memory (safety.md S3)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from auditor._files.safetensors_header import FLOATING, Header, Tensor
from auditor.errors import RefusedError

_BLOCK = 4 * 2**20
_WORKERS = min(4, os.cpu_count() or 1)
_EXPONENT = {"F16": 0x7C00, "BF16": 0x7F80}


@dataclass(frozen=True)
class Scanned:
    """sha256 of a safetensors file, and by its name of each tensor's shape and values, half floats as the
    float32 that they are."""

    file: str
    tensors: dict[str, str]


class _Look:
    """What is known of one tensor: its least and greatest value (of half floats: of their bits), and
    whether all are finite."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.finite = tensor, True
        self.low, self.high = np.inf, -np.inf

    def at(self, block: np.ndarray) -> None:
        """Look at some of its bytes, whole values."""
        kind = self.tensor.dtype
        if kind in _EXPONENT:
            bits = block.view("<u2")
            self.finite = self.finite and int((bits & 0x7FFF).max()) < _EXPONENT[kind]
            low, high = float(bits.min()), float(bits.max())
        else:
            values = block.view("<f4" if kind == "F32" else "<f8")
            low, high = float(values.min()), float(values.max())
            self.finite = self.finite and bool(np.isfinite(low) and np.isfinite(high))
        self.low, self.high = min(self.low, low), max(self.high, high)

    @property
    def is_constant(self) -> bool:
        """Do all values agree, where there are several?"""
        return self.tensor.count > 1 and self.low == self.high


def hash_file(path: Path) -> str:
    """sha256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(_BLOCK))
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
    return digest.hexdigest()


def hash_and_scan(path: Path, header: Header) -> Scanned:
    """sha256 of a safetensors file whose header was read before, and of its tensors, while every value is
    looked at.

    Raises :class:`RefusedError` at a value that is not finite, or where every matrix is constant: no trained
    model is.
    """
    name = f"{path.parent.name}/{path.name}"
    digest, looks = (
        hashlib.sha256(),
        {tensor.name: _Look(tensor) for tensor in header.tensors if tensor.dtype in FLOATING},
    )
    kinds = {tensor.name: tensor.dtype for tensor in header.tensors}
    own = {tensor.name: hashlib.sha256(f"{tensor.shape}".encode()) for tensor in header.tensors}

    def update(block: np.ndarray, tensor: str) -> None:
        digest.update(block.data)
        if tensor:
            own[tensor].update(_as_float32(block, kinds[tensor]).data)

    buffers = [np.empty(_BLOCK, np.uint8), np.empty(_BLOCK, np.uint8)]
    with path.open("rb", buffering=0) as file, ThreadPoolExecutor(1) as hasher:
        pending: Future[None] | None = None
        for number, (size, tensor) in enumerate(_blocks(header)):
            block = buffers[number % 2][:size]
            if file.readinto(block.data) != size:
                raise RefusedError(f"{name} changed while it was read.")
            if pending is not None:
                pending.result()
            pending = hasher.submit(update, block, tensor)
            if tensor in looks:
                looks[tensor].at(block)
        if pending is not None:
            pending.result()
    broken = next((look for look in looks.values() if not look.finite), None)
    if broken is not None:
        raise RefusedError(f"{name}: the tensor '{broken.tensor.name}' holds NaN or infinite values.")
    matrices = [look for look in looks.values() if len(look.tensor.shape) > 1]
    if matrices and all(look.is_constant for look in matrices):
        raise RefusedError(f"{name}: every weight is constant; such a model draws nothing.")
    return Scanned(digest.hexdigest(), {name: each.hexdigest() for name, each in own.items()})


def _as_float32(block: np.ndarray, kind: str) -> np.ndarray:
    """Half floats as float32, in which they are exact; other kinds as they are."""
    if kind == "F16":
        return block.view("<f2").astype("<f4").view(np.uint8)
    if kind == "BF16":
        return (block.view("<u2").astype("<u4") << 16).view(np.uint8)
    return block


def _blocks(header: Header) -> Iterator[tuple[int, str]]:
    """(bytes, tensor) of every block to read, in order: whole values of one tensor, or the header's own
    bytes (no tensor)."""
    spans = [
        ("", 0, header.tensors[0].start),
        *((tensor.name, tensor.start, tensor.end) for tensor in header.tensors),
    ]
    for name, start, end in spans:
        yield from ((min(_BLOCK, end - place), name) for place in range(start, end, _BLOCK))


def hash_and_scan_all(paths: Mapping[str, Path], headers: Mapping[Path, Header]) -> dict[str, Scanned]:
    """:func:`hash_and_scan` of several files at once, by their names; the first that is refused refuses
    all."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        return dict(
            zip(paths, pool.map(lambda path: hash_and_scan(path, headers[path]), paths.values()), strict=True)
        )


def hash_files(paths: Mapping[str, Path]) -> dict[str, str]:
    """sha256 of many files at once, by their names."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        return dict(zip(paths, pool.map(hash_file, paths.values()), strict=True))
