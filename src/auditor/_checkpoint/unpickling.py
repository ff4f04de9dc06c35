"""Opens a pickle and writes its tensors: run as a process of its own (:mod:`auditor._checkpoint.conversion`),
so it imports nothing of ours.

usage: unpickling.py SOURCE OUT PART,PART,... [KEY ...]

The parts are the keys under which a pickle may hold a model's parts: they become the beginnings of names.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

Found = list[tuple[tuple[str, ...], Any]]

_WRAPPERS = ("state_dict", "model", "module", "params", "state")
"""Keys that programs put around a whole model."""
_STRENGTHS = ("r", "rank", "alpha", "lora_alpha", "network_alpha", "scale", "v_pred", "ztsnr")
"""Names under which programs keep what a set of tensors is drawn by."""
_NAME = re.compile(r"[A-Za-z0-9_.:/-]+")
_MOST = 10**6


def leaves(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every tensor and number, with the keys that lead to it."""
    if isinstance(value, torch.Tensor | bool | int | float):
        yield place, value
    elif isinstance(value, dict):
        for name, part in value.items():
            if not isinstance(name, str) and isinstance(part, torch.Tensor | dict | list | tuple):
                raise SystemExit(
                    f"it has a key that is no text ({str(name)[:40]}), which no program reads as a name"
                )
            yield from leaves(part, (*place, str(name)))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from leaves(part, (*place, str(number)))


def split(value: Any) -> tuple[Found, Found]:
    """Its tensors, and the numbers beside them."""
    tensors, numbers = Found(), Found()
    for place, leaf in leaves(value):
        (tensors if isinstance(leaf, torch.Tensor) else numbers).append((place, leaf))
        if len(tensors) + len(numbers) > _MOST:
            raise SystemExit(f"it holds more than {_MOST} tensors and numbers")
    return tensors, numbers


def with_alphas(found: Found, numbers: Found) -> Found:
    """The tensors, with the numbers among them that are one (``layer.alpha``). Ends the process where another
    number says how they are drawn: in safetensors it would be lost."""
    inside = {place[:-1] for place, _ in found}
    more = [(place, number) for place, number in numbers if place[-1:] and place[-1].endswith(".alpha")]
    lost = next((place for place, _ in numbers if place[-1:] and place[-1] in _STRENGTHS), None)
    if lost is not None:
        raise SystemExit(
            f"it holds the number {'.'.join(lost)}, which says how its tensors are drawn and has no place in "
            "safetensors"
        )
    return found + [(place, torch.tensor(float(number))) for place, number in more if place[:-1] in inside]


def one_set(found: Found, parts: Sequence[str]) -> Found:
    """The tensors under their own names, or under those of ``parts``. Ends the process where there are
    several sets of them."""
    while (
        len({place[:1] for place, _ in found}) == 1 and len(found[0][0]) > 1 and found[0][0][0] in _WRAPPERS
    ):
        found = [(place[1:], part) for place, part in found]
    flat = all(len(place) == 1 for place, _ in found)
    if not flat and not all(len(place) == 2 and place[0] in parts for place, _ in found):
        named = ", ".join(sorted({place[0] for place, _ in found})[:6])
        raise SystemExit(f"it holds several sets of tensors ({named}); say which is meant with --key")
    return found


def main(source: str, out: str, parts: str, *keys: str) -> None:
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
    tensors, numbers = split(value)
    if not tensors:
        raise SystemExit("it holds no tensors")
    chosen = one_set(with_alphas(tensors, numbers), parts.split(","))
    named = {".".join(place): part for place, part in chosen}
    odd = next((name for name, part in named.items() if not _NAME.fullmatch(name) or part.is_complex()), None)
    if odd is not None or len(named) < len(chosen):
        raise SystemExit(
            f"its tensors have no names of their own ({str(odd)[:60]})"
            if odd is not None
            else "two names are one"
        )
    stored = sum(part.numel() * part.element_size() for part in named.values())
    if stored > 2**20 + 8 * Path(source).stat().st_size:
        raise SystemExit(f"its tensors would take {stored / 2**30:.1f} GiB, many times what it holds")
    save_file(
        {name: part.contiguous().clone() for name, part in named.items()}, out, metadata={"format": "pt"}
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
