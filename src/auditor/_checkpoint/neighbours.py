"""Weights beside the audited ones: other programs, or another variant, may load those, so they must be the
same model (S18)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from auditor._files.safetensors_header import Header, read_header
from auditor.errors import RefusedError
from auditor.families.family import Family

WEIGHT_FILES = (
    ".safetensors",
    ".bin",
    ".ckpt",
    ".pt",
    ".pth",
    ".pkl",
    ".pickle",
    ".onnx",
    ".onnx_data",
    ".pb",
    ".msgpack",
    ".h5",
    ".gguf",
)
"""How the names of files with weights end."""
_KINDS = ("F64", "F32", "F16", "BF16")
_CANONICAL = ("model.safetensors", "diffusion_pytorch_model.safetensors")


def weights_beside(family: Family, names: Iterable[str], audited: Iterable[str]) -> tuple[str, ...]:
    """Of a checkpoint's file names those that hold weights, lie where programs look for them, and were not
    audited."""
    left, places = set(names) - set(audited), ("", *family.stems)
    return tuple(
        sorted(
            name for name in left if name.lower().endswith(WEIGHT_FILES) and name.rpartition("/")[0] in places
        )
    )


def refuse_other_weights(
    family: Family, source: str, admitted: Mapping[Path, Header], inside: Iterable[Path]
) -> None:
    """Refuse a component whose other safetensors files hold other values than the admitted ones.

    The same values in another precision are no second model: the finer rounded to the coarser must be it bit
    for bit. Stale shards, an EMA copy or another model are: two programs, or two calls of one, would load two
    things.
    """
    for path in inside:
        if path.suffix != ".safetensors" or path in admitted:
            continue
        if (odd := _first_difference(family, admitted, path)) is not None:
            audited = ", ".join(sorted(file.name for file in admitted)[:3])
            raise RefusedError(
                f"{source}: {path.parent.name}/{path.name} holds other weights than {audited} (the first is "
                f"{odd}), and programs differ in which they load; say which is meant with --component "
                f"{path.parent.name}=FILE, or take one of the two away."
            )


def _first_difference(family: Family, admitted: Mapping[Path, Header], other: Path) -> str | None:
    """The first tensor of ``other`` that the admitted files do not hold with the same values; None where
    there is none."""
    from safetensors import safe_open

    every = [(path, tensor) for path, header in admitted.items() for tensor in header.tensors]
    plain, is_buffer = family.plain_name, family.is_buffer
    home = {plain(tensor.name): (path, tensor) for path, tensor in every if not is_buffer(tensor.name)}
    tensors = [tensor for tensor in read_header(other).tensors if not is_buffer(tensor.name)]
    if other.name in _CANONICAL and (lacks := home.keys() - {plain(tensor.name) for tensor in tensors}):
        return f"{min(lacks)}, which it lacks"  # a library that takes it draws the rest at random
    with ExitStack() as stack:
        theirs = stack.enter_context(safe_open(other, framework="pt"))
        ours: dict[Path, Any] = {
            path: stack.enter_context(safe_open(path, framework="pt")) for path in admitted
        }
        for tensor in tensors:
            path, mine = home.get(plain(tensor.name), (None, None))
            if path is None or mine is None or mine.shape != tensor.shape or tensor.dtype not in _KINDS:
                return tensor.name
            if not _is_same(ours[path].get_tensor(mine.name), theirs.get_tensor(tensor.name)):
                return tensor.name
    return None


def _is_same(one: Any, other: Any) -> bool:
    """Are two tensors the same values, as far as the coarser of their kinds can say?"""
    if one.dtype != other.dtype and one.element_size() == other.element_size():
        return False  # float16 and bfloat16: neither is the other one rounded
    coarser = other.dtype if one.element_size() >= other.element_size() else one.dtype
    return bool((one.to(coarser) == other.to(coarser)).all())
