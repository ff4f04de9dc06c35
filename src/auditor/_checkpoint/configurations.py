"""Judges the configurations of a checkpoint by an allow-list for each class (safety.md S4, S5): nothing that
is not understood reaches a library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from auditor._files.json_files import read_json
from auditor.errors import RefusedError
from auditor.families.stable_diffusion.components import (
    CLASSES,
    FEWEST_TIMESTEPS,
    LARGEST_NUMBERS,
    LIBRARIES,
    LONGEST_BLOCKS,
    NOISE_SCHEDULE,
    PREDICTIONS,
)
from auditor.families.stable_diffusion.configurations import (
    ALLOWED,
    BETAS,
    BLOCKS,
    EMA_KEYS,
    INDEX_KEYS,
    NEVER_DRAWN_WITH,
    PIPELINES,
    REASONS,
    RIGHT,
)

_LARGEST_NUMBER = 10**6
_LONGEST_LIST = 1000
_CODE = ("auto_map", "custom_pipelines", "custom_pipeline", "trust_remote_code")


def refuse_index(source: str, index: Mapping[str, Any]) -> None:
    """Refuse a ``model_index.json`` of another pipeline, of other components, or one that asks for code."""
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
    for key, value in index.items():
        if key not in (*CLASSES, *INDEX_KEYS, *NEVER_DRAWN_WITH) and value not in (None, [None, None]):
            raise RefusedError(
                f"{source}: model_index.json declares {key[:60]} = {str(value)[:80]}, which is no part of "
                "what can be audited."
            )
    pipeline = index.get("_class_name")
    if pipeline not in PIPELINES:
        raise RefusedError(
            f"{source} is drawn by {str(pipeline)[:60]}, in a way of its own; only {' or '.join(PIPELINES)} "
            "can be audited."
        )


def _refuse_by_name(source: str, index: Mapping[str, Any]) -> None:
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


def refuse_config(source: str, component: str, path: Path) -> None:
    """Refuse a component's configuration with a key, a value or a number that no model of its kind has."""
    config, name = read_json(path), f"{path.parent.name}/{path.name}"
    _refuse_code(source, name, config)
    _refuse_taken_back(source, name, config)
    if "quantization_config" in config:
        raise RefusedError(
            f"{source}: {name} asks for quantisation (quantization_config); only plain weights can be "
            "audited."
        )
    right, allowed = RIGHT[component], ALLOWED[component]
    for key, value in config.items():
        if key in right:
            if not any(
                value == one and isinstance(value, bool) == isinstance(one, bool) for one in right[key]
            ):
                why = f": {REASONS[key]}" if key in REASONS else ""
                raise RefusedError(
                    f"{source}: {name} has {key} = {str(value)[:60]}, which cannot be audited{why}."
                )
        elif key in BLOCKS:
            odd = next((block for block in _listed(value) if block not in BLOCKS[key]), None)
            if odd is not None:
                raise RefusedError(
                    f"{source}: {name} has {key} with {str(odd)[:60]}, which cannot be audited."
                )
        elif key not in allowed:
            raise RefusedError(
                f"{source}: {name} has the key '{key[:60]}', which is not understood: it could load weights "
                "or code from elsewhere; leave it out if it has no effect."
            )
    for key in ("norm_eps", "layer_norm_eps"):
        if isinstance(config.get(key), int | float) and not config[key] > 0:
            raise RefusedError(
                f"{source}: {name} has {key} = {str(config[key])[:20]}; a number above 0 is right."
            )
    for key, number in _numbers({key: value for key, value in config.items() if key not in EMA_KEYS}):
        if abs(number) > _LARGEST_NUMBER or number > LARGEST_NUMBERS.get(key, _LARGEST_NUMBER):
            raise RefusedError(
                f"{source}: {name} has {key} = {str(number)[:20]}, which no model of this kind has."
            )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def read_schedule(path: Path, scheduler: str | None = None) -> dict[str, Any]:
    """What a scheduler's configuration says of the noise that the model was trained with; its other keys are
    how somebody draws, and are left unread. ``scheduler`` is the class that the pipeline names (else the
    file's own): of it come the betas that the file does not say."""
    config = read_json(path, constants=True)
    kind = scheduler or str(config.get("_class_name", ""))
    first, last, schedule = BETAS.get(kind, BETAS["DDPMScheduler"])
    found: dict[str, Any] = {"beta_start": first, "beta_end": last, "beta_schedule": schedule}
    return found | {key: value for key, value in config.items() if key in NOISE_SCHEDULE}


def refuse_scheduler(source: str, path: Path) -> None:
    """Refuse a scheduler's configuration that asks for code or draws along a flow, and a noise schedule that
    no sampler could step through."""
    name, config = f"{path.parent.name}/{path.name}", read_json(path, constants=True)
    _refuse_code(source, name, config)
    _refuse_taken_back(source, name, config)
    for key, right in RIGHT["scheduler"].items():
        if config.get(key) not in right:
            raise RefusedError(
                f"{source}: {name} has {key} = {str(config[key])[:60]}, which cannot be audited: "
                f"{REASONS[key]}."
            )
    schedule = read_schedule(path)
    steps, prediction = schedule.get("num_train_timesteps", 1000), schedule.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise RefusedError(f"{source}: the scheduler's prediction_type is none of {', '.join(PREDICTIONS)}.")
    if type(steps) is not int or steps < FEWEST_TIMESTEPS:
        raise RefusedError(
            f"{source}: the scheduler has num_train_timesteps = {str(steps)[:20]}; {FEWEST_TIMESTEPS} or "
            "more are right."
        )
    for key, number in _numbers(schedule):
        if not abs(number) <= LARGEST_NUMBERS.get(key, _LARGEST_NUMBER):
            raise RefusedError(
                f"{source}: {name} has {key} = {str(number)[:20]}, which no model of this kind has."
            )


def refuse_scale(source: str, config: Mapping[str, Any]) -> None:
    """Refuse an autoencoder whose latents have no scale."""
    scale = config.get("scaling_factor", 0.18215)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not scale > 0:
        raise RefusedError(
            f"{source}: vae/config.json has scaling_factor = {str(scale)[:20]}; a number above 0 is right."
        )


def _refuse_code(source: str, name: str, config: Mapping[str, Any]) -> None:
    key = next((key for key in _CODE if key in config), None)
    if key is not None:
        raise RefusedError(f"{source}: {name} asks for code of its own ('{key}'); none is ever run.")


def _refuse_taken_back(source: str, name: str, config: Mapping[str, Any]) -> None:
    if config.get("_use_default_values"):
        raise RefusedError(
            f"{source}: {name} takes some of its keys back ('_use_default_values'); some loaders follow that."
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
