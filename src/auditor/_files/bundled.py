"""Where policies and erasers' options lie that come with an installation: auditor's own, and those of
installed plugin distributions.

A distribution brings its own in ``policies/NAME.yaml`` and ``policies/erasers/NAME.yaml`` inside the package
that its entry point names. No module of it is imported to find them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from auditor._files.entry_points import wanted_distributions

_PACKAGE = Path(__file__).parents[1]
_MICRO_WORLD = _PACKAGE / "microworld" / "weights"


def policies_folder() -> Path:
    """auditor's own ``policies``: inside the package where it is installed, at the top of a checkout."""
    inside = _PACKAGE / "policies"
    return inside if inside.is_dir() else _PACKAGE.parents[1] / "policies"


def micro_world() -> Path:
    """The diffusers folder of the embedded default model (its CLIP, for open_clip, is the subfolder
    ``clip``)."""
    return _MICRO_WORLD


def bundled_policy(name: str) -> Path | None:
    """The file of a policy that is installed under ``name`` (``micro-person``; ``erasers/micro-esd`` for
    an eraser's options), or None."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return None
    files = (folder / f"{name}.yaml" for folder in _folders())
    return next((file for file in files if file.is_file()), None)


def bundled_names(kind: str = "") -> list[str]:
    """Every policy that is installed, by name: auditor's own first. ``kind``: ``erasers``, for their
    options."""
    files = (file for folder in _folders() for file in sorted((folder / kind).glob("*.yaml")))
    return list(dict.fromkeys(file.stem for file in files))


def _folders() -> Iterator[Path]:
    yield policies_folder()
    for entry in (entry for found in wanted_distributions() for entry in found.entries):
        try:
            spec = importlib.util.find_spec(entry.module.split(".")[0])
        except Exception:  # noqa: BLE001, S112 - the loader names what cannot be found
            continue
        for place in (spec.submodule_search_locations or ()) if spec else ():
            yield Path(place) / "policies"
