"""Training on a GPU: how often a step makes the CPU wait."""

from __future__ import annotations

import pytest

from tests.pretended_gpu.walking import Walked, fails_today, needs_a_pretended_gpu

pytestmark = needs_a_pretended_gpu


@fails_today("rows, noise and timesteps of each step are copied from pageable memory")
@pytest.mark.parametrize("kind", ["lora", "full", "full, checkpointed"])
def test_a_step_of_a_fine_tune_waits_at_most_once(walked: Walked, kind: str) -> None:
    assert walked("training")["fine-tuning"][kind] <= 1


@fails_today("rows, noise and timesteps of each member are copied from pageable memory")
def test_a_step_of_probes_trained_together_waits_at_most_once(walked: Walked) -> None:
    assert walked("training")["together"] <= 1


@fails_today("batches are made on the CPU, and the noise schedule is made anew at each step")
def test_a_step_of_maces_loras_waits_at_most_once(walked: Walked) -> None:
    assert walked("training")["mace"] <= 1


@fails_today("the step indexes with the CPU's numbers, and reads its loss")
def test_a_step_of_esd_waits_at_most_once(walked: Walked) -> None:
    assert walked("training")["esd"] <= 1


@fails_today("rows, noise and timesteps of each step are copied from pageable memory, and rows are masked")
def test_a_step_of_textual_inversion_waits_at_most_once(walked: Walked) -> None:
    assert walked("training")["textual inversion"] <= 1
