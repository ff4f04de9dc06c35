"""The small world on a pretended GPU: waits, devices, memory that runs out, and what earlier audits left.

One file, for its cases share a process: see ``conftest.py``.
"""

from __future__ import annotations

import pytest

from tests.pretended_gpu.walking import Walked, needs_a_pretended_gpu

pytestmark = needs_a_pretended_gpu


# -- what the pretended device itself does ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("GPU and CPU", "at least two devices, cuda:0 and cpu"),
        ("two GPUs", "at least two devices, cuda:0 and cuda:1"),
        ("a generator of the CPU's", "Expected a 'cuda' device type for generator but found 'cpu'"),
        ("an index on the GPU", "indices should be either on cpu or on the same device"),
        ("numpy", "can't convert cuda:0 device type tensor to numpy"),
    ],
)
def test_what_a_gpu_refuses_is_refused(walked: Walked, what: str, words: str) -> None:
    assert words in walked("refused")["said"][what]


@pytest.mark.parametrize("what", ["a number of the CPU's", "another GPU, on purpose"])
def test_what_a_gpu_takes_is_taken(walked: Walked, what: str) -> None:
    assert walked("refused")["said"][what] is None


def test_waits_are_counted_and_nothing_else(walked: Walked) -> None:
    assert walked("refused")["waits"] == {
        "item": 1,
        "to the CPU": 1,
        "from the CPU": 1,
        "from the CPU, not waiting": 1,  # pageable memory is copied to a pinned buffer first
        "from pinned memory, not waiting": 0,
        "into a tensor from pinned memory": 0,
        "by a mask": 1,
        "arithmetic": 0,
    }


def test_a_full_card_says_so(walked: Walked) -> None:
    assert walked("refused")["full"] == "CUDA out of memory. Tried to allocate 2.00 GiB."


# -- drawing ---------------------------------------------------------------------------------------------


def waits_a_step(walked: Walked, scheduler: str) -> float:
    found = walked("drawing")[scheduler]
    return (found["4"] - found["2"]) / 2


def test_a_step_of_dpm_solver_does_not_wait(walked: Walked) -> None:
    assert waits_a_step(walked, "dpm-solver++") == 0


def test_a_step_of_ddim_does_not_wait(walked: Walked) -> None:
    assert waits_a_step(walked, "ddim") == 0


@pytest.mark.parametrize("scheduler", ["dpm-solver++", "ddim"])
def test_a_batch_waits_a_few_times(walked: Walked, scheduler: str) -> None:
    """Beside its steps: noise goes to the card, pictures come back."""
    assert walked("drawing")[scheduler]["2"] - 2 * waits_a_step(walked, scheduler) <= 8


def test_texts_are_encoded_at_one_fixed_size(walked: Walked) -> None:
    assert len(walked("drawing")["rows of texts"]) == 1


def test_the_denoiser_is_always_given_one_number_of_rows(walked: Walked) -> None:
    assert walked("drawing")["rows of the denoiser"] == [8]


# -- training --------------------------------------------------------------------------------------------


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


# -- other machines --------------------------------------------------------------------------------------


def test_a_new_card_draws_in_bfloat16(walked: Walked) -> None:
    assert walked("cards")["H100"] == "torch.bfloat16"


def test_a_card_without_bfloat16_draws_in_float16(walked: Walked) -> None:
    assert walked("cards")["T4"] == "torch.float16"


def test_a_card_of_24_gb_saves_memory_in_full_fine_tuning(walked: Walked) -> None:
    assert walked("cards")["24 GB saves memory"]


def test_the_second_of_two_cards_draws_and_the_first_stays_empty(walked: Walked) -> None:
    drawn, first, second = walked("cards")["second card"]
    assert drawn == 2 and first == 0 < second


def test_the_device_is_said(walked: Walked) -> None:
    assert "Pretended GPU" in walked("cards")["said"]


def test_a_driver_that_is_too_old_is_said(walked: Walked) -> None:
    assert "driver" in walked("cards")["old driver"].lower()


def test_torchs_own_word_for_no_memory_is_known(walked: Walked) -> None:
    assert walked("no_memory")["known"]["torch"]


@pytest.mark.parametrize("library", ["cublas", "cudnn", "engine"])
def test_every_word_for_no_memory_is_known(walked: Walked, library: str) -> None:
    assert walked("no_memory")["known"][library]


@pytest.mark.parametrize("phase", ["encoding", "held-out loss", "training"])
def test_where_memory_runs_out_it_goes_on_with_fewer_rows(walked: Walked, phase: str) -> None:
    assert walked("no_memory")[phase] is None


def test_pictures_of_the_base_are_drawn_once(walked: Walked) -> None:
    found = walked("cache")
    assert found["first"] == 2 * 2 * 4 and found["again"] == 0


def test_pictures_of_the_base_are_of_one_batch_size(walked: Walked) -> None:
    assert walked("cache")["other batches"] > 0


@pytest.mark.parametrize("kind", ["other card", "other precision"])
def test_pictures_of_the_base_are_of_one_card_and_precision(walked: Walked, kind: str) -> None:
    assert walked("cache")[kind] > 0


# -- erasing ---------------------------------------------------------------------------------------------


def test_esd_erases(walked: Walked) -> None:
    assert walked("esd") == {"erased": True, "errors": []}
