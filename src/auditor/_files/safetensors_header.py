"""Reads the header of a safetensors file and judges it before anything is allocated for the tensors it
declares (safety.md S2).

The format: eight bytes with the header's length (little-endian), the header as JSON, then the tensors' bytes
one after the other. The safetensors library accepts some of what is refused here, for instance keys that
stand twice (the last one wins).
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditor.errors import RefusedError

LARGEST_HEADER = 16 * 2**20
"""Bytes of a header that is read."""
_MOST_TENSORS = 50_000
_MOST_DIMENSIONS = 8
_LONGEST_NAME = 512
_NAME = re.compile(r"[A-Za-z0-9_.:/\-]+")
_ENTRY = {"dtype", "shape", "data_offsets"}

ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
FLOATING = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Tensor:
    """A tensor as the header declares it; ``start`` and ``end`` are positions in the file, in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """A sound header: the tensors fill the file without gap or overlap, in the order of their bytes."""

    tensors: tuple[Tensor, ...]
    metadata: dict[str, str]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes."""
        return {tensor.name: tensor.shape for tensor in self.tensors}

    @property
    def parameters(self) -> int:
        """Number of values in all tensors."""
        return sum(tensor.count for tensor in self.tensors)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The kinds of values that occur, sorted."""
        return tuple(sorted({tensor.dtype for tensor in self.tensors}))


def read_header(path: Path) -> Header:
    """The header of a safetensors file. Raises :class:`RefusedError` with the first thing that is wrong
    with it."""
    name = f"{path.parent.name}/{path.name}"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 10 or length > size - 8:
                raise _problem(name, f"it declares a header of {length} bytes and holds {max(size - 8, 0)}")
            if length > LARGEST_HEADER:
                raise _problem(name, f"its header of {length} bytes is above the limit of {LARGEST_HEADER}")
            text = file.read(length)
    except OSError as error:
        raise RefusedError(f"{name} cannot be read: {error.strerror}.") from error
    return _judged(name, text, size)


def header_of(name: str, content: bytes) -> Header:
    """The same of a file that was read before, called ``name``."""
    length = int.from_bytes(content[:8], "little")
    return _judged(name, content[8 : 8 + length], len(content))


def _judged(name: str, text: bytes, size: int) -> Header:
    length = len(text)
    declared = _parse(name, text)
    metadata = declared.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _problem(name, "its metadata is not a map of strings")
    if not 0 < len(declared) <= _MOST_TENSORS:
        raise _problem(name, f"it declares {len(declared)} tensors (1 to {_MOST_TENSORS} are read)")
    tensors = sorted(
        (_tensor(name, key, entry, 8 + length) for key, entry in declared.items()),
        key=lambda tensor: tensor.start,
    )
    expected = 8 + length
    for tensor in tensors:
        if tensor.start != expected:
            raise _problem(name, f"the bytes of '{tensor.name}' leave a gap or overlap others")
        expected = tensor.end
    if expected != size:
        raise _problem(name, f"its tensors end at byte {expected} and the file at {size}")
    return Header(tuple(tensors), metadata)


def read_number(path: Path, tensor: Tensor) -> float:
    """The number in a tensor of one, read from its file without a library. Raises :class:`RefusedError` where
    it holds more or none."""
    if tensor.count != 1:
        raise RefusedError(f"{path.name}: {tensor.name} is of shape {tensor.shape}; one number is right.")
    with path.open("rb") as file:
        file.seek(tensor.start)
        content = file.read(tensor.end - tensor.start)
    if len(content) != tensor.end - tensor.start:
        raise RefusedError(f"{path.name} changed while it was read.")
    if tensor.dtype == "BF16":
        content, tensor_kind = b"\0\0" + content, "<f"
    else:
        tensor_kind = _NUMBERS[tensor.dtype]
    return float(struct.unpack(tensor_kind, content)[0])


_NUMBERS = {
    "F64": "<d",
    "F32": "<f",
    "F16": "<e",
    "I64": "<q",
    "I32": "<i",
    "I16": "<h",
    "I8": "<b",
    "U8": "<B",
    "BOOL": "<?",
}


def _problem(file: str, what: str) -> RefusedError:
    return RefusedError(f"{file} is not a sound safetensors file: {what}.")


def _parse(file: str, text: bytes) -> dict[str, Any]:
    def once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise _problem(file, f"the key {key[:80]!r} stands twice in its header")
            found[key] = value
        return found

    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=once, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _problem(file, "its header is not JSON") from error
    if not isinstance(value, dict):
        raise _problem(file, "its header is not a JSON object")
    return value


def _refuse_constant(text: str) -> None:
    raise ValueError(text)


def _tensor(file: str, name: str, entry: Any, start: int) -> Tensor:
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name) or ".." in name:
        raise _problem(file, f"a tensor has the name {name[:80]!r}")
    if not isinstance(entry, dict) or entry.keys() != _ENTRY:
        raise _problem(file, f"the entry of '{name}' is not dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise _problem(
            file, f"'{name}' is of the kind {str(dtype)[:20]!r}; known are {', '.join(ITEM_BYTES)}"
        )
    # an empty tensor is a marker by its name alone; no weight is one
    if not _are_counts(shape) or len(shape) > _MOST_DIMENSIONS or (0 in shape and shape != [0]):
        raise _problem(file, f"'{name}' has the shape {str(shape)[:80]}")
    if (
        not _are_counts(offsets)
        or len(offsets) != 2
        or offsets[1] - offsets[0] != math.prod(shape) * ITEM_BYTES[dtype]
    ):
        raise _problem(
            file, f"'{name}' of shape {str(shape)[:80]} and kind {dtype} cannot lie at {str(offsets)[:80]}"
        )
    return Tensor(name, dtype, tuple(shape), start + offsets[0], start + offsets[1])


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**53 for item in value)
