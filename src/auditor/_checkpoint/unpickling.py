"""Opens a pickle and writes its tensors: run as a process of its own (:mod:`auditor._checkpoint.conversion`),
so it imports nothing of ours.

usage: unpickling.py SOURCE OUT [KEY ...]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from safetensors.torch import save_file

Found = list[tuple[tuple[str, ...], torch.Tensor]]

_WRAPPERS = ("state_dict", "model", "module", "params", "state")
"""Keys that programs put around a whole model."""
_PARTS = ("unet", "text_encoder", "vae")
"""Keys under which a pickle may hold a model's parts: they become the beginnings of names."""


def leaves(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    """Every tensor, with the keys that lead to it."""
    if isinstance(value, torch.Tensor):
        yield place, value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from leaves(part, (*place, str(name)))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from leaves(part, (*place, str(number)))


def one_set(found: Found) -> Found:
    """The tensors under their own names. Ends the process where there are several sets of them."""
    while (
        len({place[:1] for place, _ in found}) == 1 and len(found[0][0]) > 1 and found[0][0][0] in _WRAPPERS
    ):
        found = [(place[1:], part) for place, part in found]
    flat = all(len(place) == 1 for place, _ in found)
    parts = all(len(place) == 2 and place[0] in _PARTS for place, _ in found)
    if not flat and not parts:
        named = ", ".join(sorted({place[0] for place, _ in found})[:6])
        raise SystemExit(f"it holds several sets of tensors ({named}); say which is meant with --key")
    return found


def main(source: str, out: str, *keys: str) -> None:
    """Write the tensors of ``source``, or those under ``keys`` of it, to ``out``."""
    try:
        value = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:
        _, found, rest = str(error).partition("GLOBAL ")
        reason = f"it holds more than tensors ({rest.split()[0]})" if found and rest else str(error)
        raise SystemExit((reason.strip() or type(error).__name__).splitlines()[0]) from error
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            raise SystemExit(f"it has no key {key}")
        value = value[key]
    tensors = list(leaves(value))
    if not tensors:
        raise SystemExit("it holds no tensors")
    named = {".".join(place): part.contiguous().clone() for place, part in one_set(tensors)}
    save_file(named, out, metadata={"format": "pt"})


if __name__ == "__main__":
    main(*sys.argv[1:])
