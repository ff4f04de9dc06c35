"""What may stand in a diffusers folder, and which of its files loading will read (safety.md S1, S4, S5)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from auditor._checkpoint import vocabulary
from auditor._checkpoint.neighbours import refuse_other_weights
from auditor._files.json_files import read_json
from auditor._files.safetensors_header import Header, read_header
from auditor.errors import RefusedError
from auditor.families.stable_diffusion.components import (
    CLASSES,
    FEWEST_TIMESTEPS,
    LARGEST_NUMBERS,
    LIBRARIES,
    LONGEST_BLOCKS,
    PREDICTIONS,
    TEXT_ENCODER_KEYS,
    WEIGHTS,
)

LICENCES = ("LICENSE", "LICENCE", "NOTICE", "COPYING")
"""What the files with a checkpoint's terms are called, apart from their endings."""

_LARGEST_NUMBER = 10**6

_LONGEST_LIST = 1000

_KINDS_OF_WEIGHTS = ("F32", "F16", "BF16")

_ELSEWHERE = (
    "transformers_weights",
    "weights_name",
    "subfolder",
    "_name_or_path_weights",
    "attn_implementation",
    "_attn_implementation",
)

_TRANSFORMER = re.compile(
    r"(model\.diffusion_model\.|transformer\.)?(single_)?(transformer|joint|double)_blocks\."
)

_INDEX = re.compile(rf"({'|'.join(WEIGHTS)})/[^/]+\.safetensors\.index[^/]*\.json")

_CODE = ("auto_map", "custom_pipelines", "custom_pipeline", "trust_remote_code")


def admit_folder(source: str, folder: Path, files: Mapping[str, Path]) -> dict[str, dict[Path, Header]]:
    """Judge a diffusers folder by names, configurations and headers; ``files`` is its survey.

    Returns the weight files of each component, with their headers.
    """
    index = read_json(folder / "model_index.json")
    _refuse_code(source, "model_index.json", index)
    _refuse_by_name(source, index)
    for component, classes in CLASSES.items():
        declared = index.get(component)
        if (
            not isinstance(declared, list)
            or len(declared) != 2
            or declared[1] not in classes
            or declared[0] not in LIBRARIES
        ):
            raise RefusedError(
                f"{source}: model_index.json declares {component} = {str(declared)[:80]}; only "
                f"{' or '.join(classes)} can be audited."
            )
    weights: dict[str, dict[Path, Header]] = {}
    for component in CLASSES:
        _refuse_detours(source, folder / component, files)
        if component in WEIGHTS:
            _refuse_config(source, folder / component / "config.json")
            weights[component] = {
                path: read_header(path)
                for path in _weight_files(source, folder / component, WEIGHTS[component])
            }
            _refuse_other_kinds(source, folder / component, weights[component])
            refuse_other_weights(
                source,
                weights[component],
                [path for name, path in files.items() if name.startswith(f"{component}/")],
            )
    for name in ("scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"):
        if name.startswith("scheduler") or name in files:
            _refuse_config(source, folder / name)
    vocabulary_of(source, files)
    _refuse_scale(source, read_json(folder / "vae" / "config.json"))
    refuse_schedule(source, read_json(folder / "scheduler" / "scheduler_config.json"))
    refuse_unet(
        source, {name: shape for header in weights["unet"].values() for name, shape in header.shapes.items()}
    )
    return weights


def vocabulary_of(source: str, files: Mapping[str, Path]) -> vocabulary.Vocabulary:
    """The vocabulary that the files of a folder give."""
    return vocabulary.read_vocabulary(
        source, lambda name: files[f"tokenizer/{name}"].read_bytes() if f"tokenizer/{name}" in files else None
    )


def refuse_schedule(source: str, config: Mapping[str, Any]) -> None:
    """Refuse a noise schedule that no sampler could step through."""
    steps, prediction = config.get("num_train_timesteps", 1000), config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise RefusedError(f"{source}: the scheduler's prediction_type is none of {', '.join(PREDICTIONS)}.")
    if type(steps) is not int or steps < FEWEST_TIMESTEPS:
        raise RefusedError(
            f"{source}: the scheduler has num_train_timesteps = {str(steps)[:20]}; {FEWEST_TIMESTEPS} or "
            "more are right."
        )


def _refuse_scale(source: str, config: Mapping[str, Any]) -> None:
    scale = config.get("scaling_factor", 0.18215)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not scale > 0:
        raise RefusedError(
            f"{source}: vae/config.json has scaling_factor = {str(scale)[:20]}; a number above 0 is right."
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


def _refuse_by_name(source: str, index: dict[str, Any]) -> None:
    pipeline = str(index.get("_class_name", ""))
    for word, family in (
        ("XL", "Stable Diffusion XL"),
        ("Inpaint", "an inpainting model"),
        ("Flux", "Flux"),
        ("StableDiffusion3", "SD 3"),
    ):
        if word in pipeline:
            raise RefusedError(
                f"{source} is {family} ({pipeline[:60]}); only Stable Diffusion 1.x and 2.x can be audited "
                "so far."
            )
    if "transformer" in index and "unet" not in index:
        raise RefusedError(
            f"{source} is a diffusion transformer; only Stable Diffusion 1.x and 2.x can be audited so far."
        )


def _refuse_code(source: str, name: str, config: dict[str, Any]) -> None:
    key = next((key for key in _CODE if key in config), None)
    if key is not None:
        raise RefusedError(f"{source}: {name} asks for code of its own ('{key}'); none is ever run.")


def _refuse_detours(source: str, folder: Path, files: Mapping[str, Path]) -> None:
    """Refuse what would make a loader read other files than the ones that were admitted."""
    if not folder.is_dir():
        raise RefusedError(f"{source} has no {folder.name}: the folder is missing.")
    for name, path in files.items():
        if name.startswith(f"{folder.name}/") and path.name.startswith("adapter_"):
            raise RefusedError(
                f"{source}: {name} would load weights from elsewhere; only the component's own are read."
            )


def _refuse_config(source: str, path: Path) -> None:
    config, name = read_json(path), f"{path.parent.name}/{path.name}"
    _refuse_code(source, name, config)
    key = next((key for key in _ELSEWHERE if key in config), None)
    if key is not None:
        raise RefusedError(f"{source}: {name} would load weights or code from elsewhere ('{key}').")
    if config.get("dropout") or config.get("attention_dropout"):
        raise RefusedError(
            f"{source}: {name} asks for dropout, which would act on the probes' training alone."
        )
    if "quantization_config" in config:
        raise RefusedError(f"{source}: {name} asks for quantisation; only plain weights can be audited.")
    if path.parent.name == "text_encoder":
        odd = next((key for key in config if key not in TEXT_ENCODER_KEYS), None)
        if odd is not None:
            raise RefusedError(
                f"{source}: {name} has the key '{odd[:60]}', which is not understood; leave it out if it has "
                "no effect."
            )
        if config.get("model_type", "clip_text_model") != "clip_text_model":
            raise RefusedError(
                f"{source}: {name} is of the type {str(config['model_type'])[:60]}; clip_text_model is right."
            )
    if config.get("_use_default_values"):
        raise RefusedError(
            f"{source}: {name} takes some of its keys back ('_use_default_values'); some loaders follow that."
        )
    for key, number in _numbers(config):
        if key == "model_max_length":
            continue  # the text encoder's own length is used
        if abs(number) > _LARGEST_NUMBER or number > LARGEST_NUMBERS.get(key, _LARGEST_NUMBER):
            raise RefusedError(
                f"{source}: {name} has {key} = {str(number)[:20]}, which no model of this kind has."
            )


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number in a configuration with the name it stands under."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, str(name)[:60])
    elif isinstance(value, list):
        if len(value) > (
            LONGEST_BLOCKS if key.startswith(("block", "down_block", "up_block")) else _LONGEST_LIST
        ):
            yield f"a list of {key} of length", _LARGEST_NUMBER + len(value)
        for inner in value:
            yield from _numbers(inner, key)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value


def _weight_files(source: str, folder: Path, stem: str) -> list[Path]:
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
