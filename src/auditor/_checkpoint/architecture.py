"""Does a checkpoint hold the tensors that its configuration declares? Asked of a model without memory,
before any is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from auditor._files.json_files import read_json
from auditor.errors import RefusedError
from auditor.families.family import Family
from auditor.families.refusing import refusing

Shapes = dict[str, tuple[int, ...]]


def declared_shapes(family: Family, component: str, config: Mapping[str, Any]) -> Shapes:
    """Names and shapes of the tensors of a component with this configuration. Whatever the libraries make
    of it may be raised."""
    import torch

    with torch.device("meta"):
        model = family.build(component, config)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def refuse_other_tensors(family: Family, source: str, component: str, folder: Path, shapes: Shapes) -> None:
    """Compare what a folder's weights hold with what its configuration declares; :class:`RefusedError` at
    the first difference."""
    config = read_json(folder / component / "config.json")
    with refusing(f"{source} does not load as {family.title}: {component}/config.json"):
        declared = declared_shapes(family, component, config)
    adapted = min((name for name in shapes if ".base_layer." in name or ".lora_" in name), default=None)
    if adapted is not None:
        raise RefusedError(
            f"{source}: {component} was saved with an adapter on ({adapted}), so its own weights are not "
            "where programs look for them; merge the adapter and save it again."
        )
    used = [name for name in shapes if not family.is_unused(component, name, config)]
    held = {family.plain_name(name): shapes[name] for name in used}
    if len(held) < len(used):
        raise RefusedError(f"{source}: {component} holds tensors twice, under old and new names.")
    wanted = {
        family.plain_name(name): shape for name, shape in declared.items() if not family.is_buffer(name)
    }
    for what, names in (
        ("missing", wanted.keys() - held.keys()),
        ("unexpected", held.keys() - wanted.keys()),
    ):
        if names:
            raise RefusedError(
                f"{source}: {component} has {len(names)} {what} tensors for its declared architecture, the "
                f"first {min(names)}."
            )
    for name, shape in wanted.items():
        if held[name] != shape:
            raise RefusedError(
                f"{source}: {component} has mismatched tensors: {name} is of shape {held[name]}, declared is "
                f"{shape}."
            )
