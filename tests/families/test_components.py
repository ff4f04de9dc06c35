"""The tables of Stable Diffusion's components agree with the micro world, which is one."""

from __future__ import annotations

import json

from auditor._files.bundled import micro_world
from auditor.families.registry import family_of_index
from auditor.families.stable_diffusion.components import (
    CLASSES,
    LARGEST_NUMBERS,
    LIBRARIES,
    NOISE_SCHEDULE,
    SINGLE_FILE_PARTS,
    WEIGHTS,
)
from auditor.families.stable_diffusion.family import STABLE_DIFFUSION


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


def test_the_family_that_admission_asks_holds_these_tables() -> None:
    assert STABLE_DIFFUSION.stems == WEIGHTS and set(STABLE_DIFFUSION.stems) == set(STABLE_DIFFUSION.weights)
    assert {each.name: each.classes for each in STABLE_DIFFUSION.components} == CLASSES
    schedulers = STABLE_DIFFUSION.schedules.schedulers
    assert set(schedulers) == set(CLASSES["scheduler"]) and next(iter(schedulers)) == "DDPMScheduler"
    assert family_of_index(configuration("model_index.json")) is STABLE_DIFFUSION


def test_what_a_part_allows_is_said_once() -> None:
    for component in STABLE_DIFFUSION.components:
        assert not set(component.allowed) & component.right.keys()
        assert not set(component.allowed) & STABLE_DIFFUSION.configurations.blocks.keys()
