"""Other cards than the one that was thought of, memory that runs out, and pictures of earlier audits."""

from __future__ import annotations

import pytest

from tests.pretended_gpu.walking import Walked, needs_a_pretended_gpu

pytestmark = needs_a_pretended_gpu


def test_a_new_card_draws_in_bfloat16(walked: Walked) -> None:
    assert walked("cards")["H100"] == "torch.bfloat16"


def test_a_card_without_bfloat16_draws_in_float16(walked: Walked) -> None:
    assert walked("cards")["T4"] == "torch.float16"


def test_a_card_of_24_gb_saves_memory_in_full_fine_tuning(walked: Walked) -> None:
    assert walked("cards")["24 GB saves memory"]


def test_the_second_of_two_cards_draws_and_the_first_stays_empty(walked: Walked) -> None:
    drawn, first, second = walked("cards")["second card"]
    assert drawn == 2 and first == 0 < second


def test_the_plan_says_the_device(walked: Walked) -> None:
    assert "Pretended GPU" in walked("cards")["plan"]


def test_the_plan_says_that_the_driver_is_too_old(walked: Walked) -> None:
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
