"""Which token of "a photo of Borin Talvek" answers to which of "a photo of a person"."""

from __future__ import annotations

from collections.abc import Sequence


def align_tokens(old: Sequence[int], new: Sequence[int], length: int) -> tuple[list[int], list[int]]:
    """Positions of ``old`` and of ``new`` that stand for the same context: common start, common end, padding
    after it.

    ``old`` and ``new`` are token ids with start and end, without padding; both prompts are padded to
    ``length``. Start and end tokens always match; what differs, the phrase itself, is left out; the k-th pad
    after one end goes with the k-th after the other, as far as both have one. Returns two lists of equal
    length.
    """
    shorter = min(len(old), len(new))
    start = 0
    while start < shorter and old[start] == new[start]:
        start += 1
    end = 0
    while end < shorter - start and old[-1 - end] == new[-1 - end]:
        end += 1
    pads = length - max(len(old), len(new))
    old_positions = [*range(start), *range(len(old) - end, len(old) + pads)]
    new_positions = [*range(start), *range(len(new) - end, len(new) + pads)]
    return old_positions, new_positions


def phrase_positions(prompt: Sequence[int], phrase: Sequence[int]) -> list[int]:
    """Every position of ``prompt`` that belongs to an occurrence of ``phrase`` (token ids without start
    and end)."""
    width = len(phrase)
    starts = [at for at in range(len(prompt) - width + 1) if list(prompt[at : at + width]) == list(phrase)]
    return [at + offset for at in starts for offset in range(width)]
