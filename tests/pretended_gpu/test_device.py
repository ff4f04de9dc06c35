"""The pretended device itself: it refuses what a GPU refuses, and counts what a GPU is waited for."""

from __future__ import annotations

import pytest

from tests.pretended_gpu.walking import Walked, needs_a_pretended_gpu

pytestmark = needs_a_pretended_gpu


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
