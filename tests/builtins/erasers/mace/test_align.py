"""Token alignment, case by case (mace.md, 8.1)."""

from __future__ import annotations

import pytest

from auditor.builtins.erasers.mace.align import align_tokens, phrase_positions

START, END = 98, 99
LENGTH = 16


@pytest.mark.parametrize(
    ("old", "new", "old_out", "new_out"),
    [
        ([1, 2, 10, 3], [1, 2, 20, 3], [3], [3]),  # one token for one
        ([1, 10, 11, 3], [1, 20, 21, 3], [2, 3], [2, 3]),  # two for two
        ([1, 10, 11, 12], [1, 20, 21], [2, 3, 4], [2, 3]),  # three for two, at the end
        ([10, 11, 3], [20, 21, 22, 3], [1, 2], [1, 2, 3]),  # two for three, at the start
        ([1, 10, 11, 3], [1, 10, 12, 3], [3], [3]),  # shared first token
        ([1, 2, 3], [1, 2, 3], [], []),  # the same phrase
    ],
)
def test_everything_but_the_phrase_is_paired(
    old: list[int], new: list[int], old_out: list[int], new_out: list[int]
) -> None:
    old, new = [START, *old, END], [START, *new, END]
    left, right = align_tokens(old, new, LENGTH)
    assert len(left) == len(right) == len(old) - len(old_out) + LENGTH - max(len(old), len(new))
    assert not set(left) & set(old_out) and not set(right) & set(new_out)
    for a, b in zip(left, right, strict=True):
        assert (old[a] if a < len(old) else None) == (new[b] if b < len(new) else None)
    assert max(left) < LENGTH and max(right) < LENGTH


def test_prompts_as_long_as_the_model_have_no_padding_to_pair() -> None:
    old = [START, *range(14), END]
    assert align_tokens(old, old, LENGTH) == (list(range(16)), list(range(16)))


def test_every_occurrence_of_a_phrase_is_found() -> None:
    assert phrase_positions([START, 5, 6, 1, 5, 6, END], [5, 6]) == [1, 2, 4, 5]
    assert phrase_positions([START, 5, END], [5, 6]) == []
