"""Judges the configurations of a checkpoint by its family's allow-lists (safety.md S4, S5): nothing that is
not understood reaches a library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from auditor._files.json_files import read_json
from auditor.errors import RefusedError
from auditor.families.family import Family
from auditor.families.on_disk import Component, Configurations

_LARGEST_NUMBER = 10**6
_LONGEST_LIST = 1000
_CODE = ("auto_map", "custom_pipelines", "custom_pipeline", "trust_remote_code")


def refuse_index(family: Family, source: str, index: Mapping[str, Any]) -> None:
    """Refuse a ``model_index.json`` of another pipeline, of other components, or one that asks for code."""
    _refuse_code(source, "model_index.json", index)
    family.refuse_index(source, index)
    rules = family.configurations
    for component in family.components:
        declared = index.get(component.name)
        if (
            not isinstance(declared, list)
            or len(declared) != 2
            or declared[1] not in component.classes
            or declared[0] not in rules.libraries
        ):
            raise RefusedError(
                f"{source}: model_index.json declares {component.name} = {str(declared)[:80]}; only "
                f"{' or '.join(component.classes)} can be audited."
            )
    known = (*(each.name for each in family.components), *rules.index_keys, *rules.never_drawn_with)
    for key, value in index.items():
        if key not in known and value not in (None, [None, None]):
            raise RefusedError(
                f"{source}: model_index.json declares {key[:60]} = {str(value)[:80]}, which is no part of "
                "what can be audited."
            )
    pipeline = index.get("_class_name")
    if pipeline not in rules.pipelines:
        raise RefusedError(
            f"{source} is drawn by {str(pipeline)[:60]}, in a way of its own; only "
            f"{' or '.join(rules.pipelines)} can be audited."
        )


def refuse_config(family: Family, source: str, component: Component, path: Path) -> None:
    """Refuse a component's configuration with a key, a value or a number that no model of its kind has."""
    config, name = read_json(path), f"{path.parent.name}/{path.name}"
    _refuse_code(source, name, config)
    _refuse_taken_back(source, name, config)
    if "quantization_config" in config:
        raise RefusedError(
            f"{source}: {name} asks for quantisation (quantization_config); only plain weights can be "
            "audited."
        )
    right, rules = component.right, family.configurations
    for key, value in config.items():
        if key in right:
            if not any(
                value == one and isinstance(value, bool) == isinstance(one, bool) for one in right[key]
            ):
                why = f": {rules.reasons[key]}" if key in rules.reasons else ""
                raise RefusedError(
                    f"{source}: {name} has {key} = {str(value)[:60]}, which cannot be audited{why}."
                )
        elif key in rules.blocks:
            odd = next((block for block in _listed(value) if block not in rules.blocks[key]), None)
            if odd is not None:
                raise RefusedError(
                    f"{source}: {name} has {key} with {str(odd)[:60]}, which cannot be audited."
                )
        elif key not in component.allowed:
            raise RefusedError(
                f"{source}: {name} has the key '{key[:60]}', which is not understood: it could load weights "
                "or code from elsewhere; leave it out if it has no effect."
            )
    for key in ("norm_eps", "layer_norm_eps"):
        if isinstance(config.get(key), int | float) and not config[key] > 0:
            raise RefusedError(
                f"{source}: {name} has {key} = {str(config[key])[:20]}; a number above 0 is right."
            )
    read = {key: value for key, value in config.items() if key not in rules.unread}
    for key, number in _numbers(rules, read):
        if abs(number) > _LARGEST_NUMBER or number > rules.largest.get(key, _LARGEST_NUMBER):
            raise RefusedError(
                f"{source}: {name} has {key} = {str(number)[:20]}, which no model of this kind has."
            )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def read_schedule(family: Family, path: Path, scheduler: str | None = None) -> dict[str, Any]:
    """What a scheduler's configuration says of the noise that the model was trained with; its other keys are
    how somebody draws, and are left unread. ``scheduler`` is the class that the pipeline names (else the
    file's own): of it comes what the file does not say."""
    config = read_json(path, constants=True)
    kind = scheduler or str(config.get("_class_name", ""))
    rules = family.schedules
    usual = rules.schedulers.get(kind, next(iter(rules.schedulers.values())))
    return {**usual, **{key: value for key, value in config.items() if key in rules.keys}}


def refuse_scheduler(family: Family, source: str, component: Component, path: Path) -> None:
    """Refuse a scheduler's configuration that asks for code or draws along a flow, and a noise schedule that
    no sampler could step through."""
    name, config = f"{path.parent.name}/{path.name}", read_json(path, constants=True)
    _refuse_code(source, name, config)
    _refuse_taken_back(source, name, config)
    rules, known = family.configurations, family.schedules
    for key, right in component.right.items():
        if config.get(key) not in right:
            why = f": {rules.reasons[key]}" if key in rules.reasons else ""
            raise RefusedError(
                f"{source}: {name} has {key} = {str(config.get(key))[:60]}, which cannot be audited{why}."
            )
    schedule, predictions = read_schedule(family, path), known.predictions
    steps = schedule.get("num_train_timesteps", 1000)
    if schedule.get("prediction_type", predictions[0]) not in predictions:
        raise RefusedError(f"{source}: the scheduler's prediction_type is none of {', '.join(predictions)}.")
    if type(steps) is not int or steps < known.fewest_timesteps:
        raise RefusedError(
            f"{source}: the scheduler has num_train_timesteps = {str(steps)[:20]}; "
            f"{known.fewest_timesteps} or more are right."
        )
    for key, number in _numbers(rules, schedule):
        if not abs(number) <= rules.largest.get(key, _LARGEST_NUMBER):
            raise RefusedError(
                f"{source}: {name} has {key} = {str(number)[:20]}, which no model of this kind has."
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


def _numbers(rules: Configurations, value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number in a configuration with the name it stands under."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(rules, inner, str(name)[:60])
    elif isinstance(value, list):
        most = (length for start, length in rules.longest.items() if key.startswith(start))
        if len(value) > next(most, _LONGEST_LIST):
            yield f"a list of {key} of length", _LARGEST_NUMBER + len(value)
        for inner in value:
            yield from _numbers(rules, inner, key)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value
