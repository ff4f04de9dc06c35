"""What may stand in a diffusers folder, and which of its files loading will read (safety.md S1, S4, S5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from auditor._checkpoint.configurations import (
    read_schedule,
    refuse_config,
    refuse_index,
    refuse_scheduler,
)
from auditor._checkpoint.neighbours import refuse_other_weights
from auditor._files.json_files import read_json
from auditor._files.safetensors_header import Header, read_header
from auditor.errors import RefusedError, UsageError
from auditor.families.family import Family
from auditor.families.on_disk import Words
from auditor.families.registry import family_of_index

LICENCES = ("LICENSE", "LICENCE", "NOTICE", "COPYING")
"""What the files with a checkpoint's terms are called, apart from their endings."""

_KINDS_OF_WEIGHTS = ("F32", "F16", "BF16")

_INDEX = re.compile(r"[^/]+\.safetensors\.index[^/]*\.json")
_SCHEDULER = "scheduler"


def family_of(folder: Path) -> Family:
    """The family of a diffusers folder, by its ``model_index.json``; :class:`RefusedError` where that cannot
    be read."""
    return family_of_index(read_json(folder / "model_index.json"))


def configs_of(family: Family, folder: Path) -> dict[str, dict[str, Any]]:
    """The configuration of each component with weights, by its name."""
    return {part: read_json(folder / part / "config.json") for part in family.stems}


def admit_folder(
    family: Family,
    source: str,
    folder: Path,
    files: Mapping[str, Path],
    chosen: Mapping[str, str] | None = None,
) -> dict[str, dict[Path, Header]]:
    """Judge a diffusers folder by names, configurations and headers; ``files`` is its survey, ``chosen`` the
    file of weights that is meant by component.

    Returns the weight files of each component, with their headers.
    """
    refuse_index(family, source, read_json(folder / "model_index.json"))
    weights: dict[str, dict[Path, Header]] = {}
    _refuse_choice(family, source, files, chosen or {})
    for component in family.components:
        own_folder = folder / component.name
        _refuse_detours(source, own_folder, files)
        if component.weights is not None:
            refuse_config(family, source, component, own_folder / "config.json")
            own = (chosen or {}).get(component.name)
            paths = (
                weight_files(source, own_folder, component.weights)
                if own is None
                else [files[f"{component.name}/{own}"]]
            )
            weights[component.name] = {path: read_header(path) for path in paths}
            _refuse_other_kinds(family, source, own_folder, weights[component.name])
            inside = [path for name, path in files.items() if name.startswith(f"{component.name}/")]
            if own is None:
                refuse_other_weights(family, source, weights[component.name], inside)
    for component in family.components:
        if component.name == _SCHEDULER:
            refuse_scheduler(family, source, component, schedule_path(folder))
    words_of(family, source, files)
    family.refuse_configs(source, configs_of(family, folder))
    denoiser = weights[family.denoiser].values()
    family.refuse_denoiser(
        source, {name: shape for header in denoiser for name, shape in header.shapes.items()}
    )
    return weights


def schedule_path(folder: Path) -> Path:
    """Where a diffusers folder has its scheduler's configuration."""
    return folder / _SCHEDULER / "scheduler_config.json"


def schedule_of(family: Family, folder: Path) -> dict[str, Any]:
    """The noise schedule of a diffusers folder."""
    scheduler = read_json(folder / "model_index.json").get(_SCHEDULER)
    kind = scheduler[1] if isinstance(scheduler, list) and len(scheduler) == 2 else None
    return read_schedule(family, schedule_path(folder), kind if isinstance(kind, str) else None)


def _refuse_choice(family: Family, source: str, files: Mapping[str, Path], chosen: Mapping[str, str]) -> None:
    for component, name in chosen.items():
        inside = [
            file.removeprefix(f"{component}/")
            for file in files
            if file.startswith(f"{component}/") and file.endswith(".safetensors")
        ]
        known = family.stems
        if component not in known or name not in inside:
            held = f"has {', '.join(inside)}" if component in known else f"is none of {', '.join(known)}"
            raise UsageError(f"{source}: {component}={name} names no file of weights; {component} {held}.")


def words_of(family: Family, source: str, files: Mapping[str, Path]) -> Words:
    """How the files of a folder say that prompts are read."""
    return family.read_words(source, lambda name: files[name].read_bytes() if name in files else None)


def files_that_load(
    family: Family, files: Mapping[str, Path], weights: dict[str, dict[Path, Header]]
) -> dict[str, Path]:
    """Of a folder's files those that loading reads: weights, and the configurations and vocabulary beside
    them."""
    read = {path for headers in weights.values() for path in headers}
    wanted = {
        "model_index.json",
        f"{_SCHEDULER}/scheduler_config.json",
        *family.word_files,
    }
    wanted |= {f"{component}/config.json" for component in weights}
    return {
        name: path
        for name, path in files.items()
        if name in wanted or path in read or _is_index(name, weights)
    }


def _is_index(name: str, parts: Iterable[str]) -> bool:
    """Is a file an index of the shards of one of the ``parts``?"""
    part, _, file = name.partition("/")
    return part in parts and _INDEX.fullmatch(file) is not None


def _refuse_detours(source: str, folder: Path, files: Mapping[str, Path]) -> None:
    """Refuse what would make a loader read other files than the ones that were admitted."""
    if not folder.is_dir():
        raise RefusedError(f"{source} has no {folder.name}: the folder is missing.")
    for name, path in files.items():
        if name.startswith(f"{folder.name}/") and path.name.startswith("adapter_"):
            raise RefusedError(
                f"{source}: {name} would load weights from elsewhere; only the component's own are read."
            )


def weight_files(source: str, folder: Path, stem: str) -> list[Path]:
    """The safetensors of one component: one file, its half-precision variant, or the shards that an index
    names."""
    for name in (f"{stem}.safetensors", f"{stem}.fp16.safetensors"):
        index = folder / f"{stem}.safetensors.index{'.fp16' if 'fp16' in name else ''}.json"
        if index.is_file():
            return [folder / shard for shard in _shards(source, index)]
        if (folder / name).is_file():
            return [folder / name]
    raise RefusedError(
        f"{source} has no {folder.name}: {folder.name}/{stem}.safetensors is missing (only safetensors "
        "weights are read)."
    )


def _refuse_other_kinds(family: Family, source: str, folder: Path, admitted: dict[Path, Header]) -> None:
    """Refuse kinds of values that no trained weights have."""
    for path, header in admitted.items():
        odd = next(
            (
                tensor
                for tensor in header.tensors
                if tensor.dtype not in _KINDS_OF_WEIGHTS and not family.is_buffer(tensor.name)
            ),
            None,
        )
        if odd is not None:
            raise RefusedError(
                f"{source}: {folder.name}/{path.name} has {odd.name} of the kind {odd.dtype}; weights are "
                f"{', '.join(_KINDS_OF_WEIGHTS)}."
            )


def _shards(source: str, index: Path) -> list[str]:
    """The file names that an index of shards gives, each a plain name of a safetensors file beside it."""
    mapped = read_json(index).get("weight_map")
    if (
        not isinstance(mapped, dict)
        or not mapped
        or not all(isinstance(name, str) for name in mapped.values())
    ):
        raise RefusedError(f"{source}: {index.parent.name}/{index.name} has no weight_map.")
    for name in set(mapped.values()):
        if Path(name).name != name or "\\" in name or ":" in name or not name.endswith(".safetensors"):
            raise RefusedError(
                f"{source}: {index.parent.name}/{index.name} would load weights from elsewhere "
                f"({name[:60]!r})."
            )
        if not (index.parent / name).is_file():
            raise RefusedError(f"{source}: the shard {index.parent.name}/{name} is missing.")
    names = sorted(set(mapped.values()))
    held = {key: name for name in names for key in read_header(index.parent / name).shapes}
    if held != mapped:
        raise RefusedError(f"{source}: {index.parent.name}/{index.name} does not say what its shards hold.")
    return names
