"""Pieces of work at once: in order, one thread each, and none is left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from auditor._diffusion.side_by_side import side_by_side
from auditor._process.machine import torch_threads


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    with torch_threads(request.param):
        yield request.param
        assert torch.get_num_threads() == request.param


def test_results_come_in_order_and_each_is_computed_by_one_thread(threads: int) -> None:
    def piece(number: int) -> Callable[[threading.Event], tuple[int, int]]:
        return lambda stop: (number, torch.get_num_threads())

    assert side_by_side([piece(number) for number in range(5)]) == [(number, 1) for number in range(5)]


def test_no_more_at_once_than_there_are_threads(threads: int) -> None:
    now, most, lock = [0], [0], threading.Lock()

    def piece(stop: threading.Event) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1

    side_by_side([piece] * 4)
    assert most[0] == threads


@pytest.mark.parametrize("who", ["a piece", "the caller"])
def test_an_error_ends_all(threads: int, who: str) -> None:
    ended = []

    def waits(stop: threading.Event) -> None:
        ended.append(stop.wait(30))

    def breaks(stop: threading.Event) -> None:
        raise ValueError("broken")

    def meanwhile() -> None:
        if who == "the caller":
            raise ValueError("broken")

    pieces = [breaks, waits] if who == "a piece" else [waits, waits]
    with pytest.raises(ValueError, match="broken"):
        side_by_side(pieces, meanwhile)
    assert all(ended)
