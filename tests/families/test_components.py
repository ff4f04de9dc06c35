"""The tables of Stable Diffusion's components agree with the micro world, which is one."""

from __future__ import annotations

import json

from auditor._files.bundled import micro_world
from auditor.families.stable_diffusion.components import (
    CLASSES,
    LARGEST_NUMBERS,
    LIBRARIES,
    NOISE_SCHEDULE,
    SINGLE_FILE_PARTS,
    WEIGHTS,
)


def configuration(name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((micro_world() / name).read_text(encoding="utf-8"))
    return found


def test_a_checkpoint_of_the_family_declares_these_classes() -> None:
    index = configuration("model_index.json")
    for component, classes in CLASSES.items():
        library, name = index[component]  # type: ignore[misc]
        assert library in LIBRARIES and name in classes


def test_components_with_weights_have_the_file_and_a_prefix_each() -> None:
    assert WEIGHTS.keys() == SINGLE_FILE_PARTS.keys()
    for component, stem in WEIGHTS.items():
        assert (micro_world() / component / f"{stem}.safetensors").is_file()


def test_configurations_of_the_family_are_within_the_bounds() -> None:
    assert set(NOISE_SCHEDULE) & set(configuration("scheduler/scheduler_config.json"))
    for component in WEIGHTS:
        for key, value in configuration(f"{component}/config.json").items():
            if key in LARGEST_NUMBERS and isinstance(value, int):
                assert value <= LARGEST_NUMBERS[key]
