"""Drawing on a GPU: no step waits, and an image's bits do not hang on its company."""

from __future__ import annotations

import pytest

from tests.pretended_gpu.walking import Walked, needs_a_pretended_gpu

pytestmark = needs_a_pretended_gpu


def waits_a_step(walked: Walked, scheduler: str) -> float:
    found = walked("drawing")[scheduler]
    return (found["6"] - found["3"]) / 3


def test_a_step_of_dpm_solver_does_not_wait(walked: Walked) -> None:
    assert waits_a_step(walked, "dpm-solver++") == 0


def test_a_step_of_ddim_does_not_wait(walked: Walked) -> None:
    assert waits_a_step(walked, "ddim") == 0


@pytest.mark.parametrize("scheduler", ["dpm-solver++", "ddim"])
def test_a_batch_waits_a_few_times(walked: Walked, scheduler: str) -> None:
    """Beside its steps: noise goes to the card, pictures come back."""
    assert walked("drawing")[scheduler]["3"] - 3 * waits_a_step(walked, scheduler) <= 8


def test_texts_are_encoded_at_one_fixed_size(walked: Walked) -> None:
    assert len(walked("drawing")["rows of texts"]) == 1


def test_the_denoiser_is_always_given_one_number_of_rows(walked: Walked) -> None:
    assert walked("drawing")["rows of the denoiser"] == [8]
