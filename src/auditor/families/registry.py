"""The families that are known, and which of them a checkpoint is of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from auditor.families.family import Family
from auditor.families.stable_diffusion.family import STABLE_DIFFUSION

_KNOWN: list[Family] = [STABLE_DIFFUSION]


def families() -> tuple[Family, ...]:
    """Every family that is known. What is of none is judged, and refused, as the first."""
    return tuple(_KNOWN)


def family_of_index(index: Mapping[str, Any]) -> Family:
    """The family whose pipeline a ``model_index.json`` names."""
    pipeline = index.get("_class_name")
    return next((each for each in _KNOWN if pipeline in each.configurations.pipelines), _KNOWN[0])


@contextmanager
def registered(family: Family) -> Iterator[None]:
    """Know one more family while the context lasts."""
    _KNOWN.append(family)
    try:
        yield
    finally:
        _KNOWN.remove(family)
