"""What may stand in a diffusers folder, and which of its files loading will read (safety.md S1, S4, S5)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from auditor._checkpoint import vocabulary
from auditor._checkpoint.configurations import (
    read_schedule,
    refuse_config,
    refuse_index,
    refuse_scale,
    refuse_scheduler,
)
from auditor._checkpoint.neighbours import refuse_other_weights
from auditor._files.json_files import read_json
from auditor._files.safetensors_header import Header, read_header
from auditor.errors import RefusedError, UsageError
from auditor.families.stable_diffusion.components import CLASSES, WEIGHTS

LICENCES = ("LICENSE", "LICENCE", "NOTICE", "COPYING")
"""What the files with a checkpoint's terms are called, apart from their endings."""

_KINDS_OF_WEIGHTS = ("F32", "F16", "BF16")

_TRANSFORMER = re.compile(
    r"(model\.diffusion_model\.|transformer\.)?(single_)?(transformer|joint|double)_blocks\."
)

_INDEX = re.compile(rf"({'|'.join(WEIGHTS)})/[^/]+\.safetensors\.index[^/]*\.json")


def admit_folder(
    source: str, folder: Path, files: Mapping[str, Path], chosen: Mapping[str, str] | None = None
) -> dict[str, dict[Path, Header]]:
    """Judge a diffusers folder by names, configurations and headers; ``files`` is its survey, ``chosen`` the
    file of weights that is meant by component.

    Returns the weight files of each component, with their headers.
    """
    refuse_index(source, read_json(folder / "model_index.json"))
    weights: dict[str, dict[Path, Header]] = {}
    _refuse_choice(source, files, chosen or {})
    for component in CLASSES:
        _refuse_detours(source, folder / component, files)
        if component in WEIGHTS:
            refuse_config(source, component, folder / component / "config.json")
            own = (chosen or {}).get(component)
            paths = (
                weight_files(source, folder / component, WEIGHTS[component])
                if own is None
                else [files[f"{component}/{own}"]]
            )
            weights[component] = {path: read_header(path) for path in paths}
            _refuse_other_kinds(source, folder / component, weights[component])
            inside = [path for name, path in files.items() if name.startswith(f"{component}/")]
            if own is None:
                refuse_other_weights(source, weights[component], inside)
    refuse_scheduler(source, folder / "scheduler" / "scheduler_config.json")
    vocabulary_of(source, files)
    refuse_scale(source, read_json(folder / "vae" / "config.json"))
    refuse_unet(
        source, {name: shape for header in weights["unet"].values() for name, shape in header.shapes.items()}
    )
    return weights


def schedule_of(folder: Path) -> dict[str, Any]:
    """The noise schedule of a diffusers folder."""
    scheduler = read_json(folder / "model_index.json").get("scheduler")
    kind = scheduler[1] if isinstance(scheduler, list) and len(scheduler) == 2 else None
    return read_schedule(
        folder / "scheduler" / "scheduler_config.json", kind if isinstance(kind, str) else None
    )


def _refuse_choice(source: str, files: Mapping[str, Path], chosen: Mapping[str, str]) -> None:
    for component, name in chosen.items():
        inside = [
            file.removeprefix(f"{component}/")
            for file in files
            if file.startswith(f"{component}/") and file.endswith(".safetensors")
        ]
        if component not in WEIGHTS or name not in inside:
            held = f"has {', '.join(inside)}" if component in WEIGHTS else f"is none of {', '.join(WEIGHTS)}"
            raise UsageError(f"{source}: {component}={name} names no file of weights; {component} {held}.")


def vocabulary_of(source: str, files: Mapping[str, Path]) -> vocabulary.Vocabulary:
    """The vocabulary that the files of a folder give."""
    return vocabulary.read_vocabulary(
        source, lambda name: files[f"tokenizer/{name}"].read_bytes() if f"tokenizer/{name}" in files else None
    )


def files_that_load(files: Mapping[str, Path], weights: dict[str, dict[Path, Header]]) -> dict[str, Path]:
    """Of a folder's files those that loading reads: weights, and the configurations and vocabulary beside
    them."""
    read = {path for headers in weights.values() for path in headers}
    wanted = {
        "model_index.json",
        "scheduler/scheduler_config.json",
        *(f"tokenizer/{name}" for name in vocabulary.FILES),
    }
    wanted |= {f"{component}/config.json" for component in weights}
    return {
        name: path for name, path in files.items() if name in wanted or path in read or _INDEX.fullmatch(name)
    }


def refuse_unet(source: str, shapes: dict[str, tuple[int, ...]]) -> None:
    """Refuse by name what cannot be audited yet: the UNets of other families."""
    first = shapes.get("conv_in.weight") or shapes.get("model.diffusion_model.input_blocks.0.0.weight")
    if any(name.startswith("add_embedding") or ".label_emb." in name for name in shapes):
        raise RefusedError(
            f"{source} is Stable Diffusion XL; only Stable Diffusion 1.x and 2.x can be audited so far."
        )
    if first is None and any(_TRANSFORMER.match(name) for name in shapes):
        raise RefusedError(
            f"{source} is a diffusion transformer; only Stable Diffusion 1.x and 2.x can be audited so far."
        )
    if first is not None and len(first) == 4 and first[1] == 9:
        raise RefusedError(
            f"{source} is an inpainting model (9 input channels); only text-to-image models can be audited."
        )
    if first is not None and len(first) == 4 and first[1] != 4:
        raise RefusedError(
            f"{source} takes {first[1]} input channels; only text-to-image models of 4 can be audited."
        )


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


def _refuse_other_kinds(source: str, folder: Path, admitted: dict[Path, Header]) -> None:
    """Refuse kinds of values that no trained weights have."""
    for path, header in admitted.items():
        odd = next(
            (
                tensor
                for tensor in header.tensors
                if tensor.dtype not in _KINDS_OF_WEIGHTS and "position_ids" not in tensor.name
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
