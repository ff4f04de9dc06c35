"""Training on a GPU: how often a step makes the CPU wait."""

from __future__ import annotations

import pytest

from tests.pretended_gpu.walking import Walked, needs_a_pretended_gpu

pytestmark = needs_a_pretended_gpu


@pytest.mark.parametrize("kind", ["lora", "full", "full, checkpointed"])
def test_a_step_of_a_fine_tune_waits_at_most_once(walked: Walked, kind: str) -> None:
    assert walked("training")["fine-tuning"][kind] <= 1


def test_a_step_of_probes_trained_together_waits_at_most_once(walked: Walked) -> None:
    assert walked("training")["together"] <= 1


def test_a_step_of_maces_loras_waits_at_most_once(walked: Walked) -> None:
    assert walked("training")["mace"] <= 1


def test_a_step_of_esd_waits_at_most_once(walked: Walked) -> None:
    assert walked("training")["esd"] <= 1


def test_a_step_of_textual_inversion_waits_at_most_once(walked: Walked) -> None:
    assert walked("training")["textual inversion"] <= 1
