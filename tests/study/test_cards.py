"""Each process of a study sees one card of those that the study may use."""

from __future__ import annotations

import os

import pytest
import torch

from auditor._study.cards import card_of, environment_of


@pytest.mark.parametrize(
    ("visible", "found", "cards"),
    [
        (None, 1, ["0", "0", "0"]),
        (None, 2, ["0", "1", "0"]),
        (None, 4, ["0", "1", "2"]),
        ("2,3", 2, ["2", "3", "2"]),
        (" 3 , 1 ", 2, ["3", "1", "3"]),
        ("GPU-8932f937,MIG-4a1b", 2, ["GPU-8932f937", "MIG-4a1b", "GPU-8932f937"]),
        ("0,1,-1,2", 2, ["0", "1", "0"]),
        ("1,7", 1, ["1", "1", "1"]),
    ],
)
def test_workers_take_the_cards_in_turn(visible: str | None, found: int, cards: list[str]) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    taken = [card_of(worker, environment, found) for worker in range(3)]
    assert taken == [{"CUDA_VISIBLE_DEVICES": card} for card in cards]


@pytest.mark.parametrize("environment", [{}, {"CUDA_VISIBLE_DEVICES": ""}, {"CUDA_VISIBLE_DEVICES": "-1"}])
def test_without_a_card_nothing_is_said(environment: dict[str, str]) -> None:
    assert card_of(1, environment, 0) == {}


@pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU")
def test_on_a_cpu_workers_have_the_environment_of_the_first() -> None:
    assert environment_of(3) == dict(os.environ)
