"""Holm's step-down procedure (Holm 1979)."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float], alpha: float, planned: int) -> list[bool]:
    """Which hypotheses are rejected at family-wise level ``alpha`` when ``planned`` were planned.

    Hypotheses that were planned and have no p-value count as p = 1.
    """
    if planned < len(p_values):
        raise ValueError(f"{len(p_values)} p-values for {planned} planned hypotheses")
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > alpha / (planned - rank):
            break
        rejected[index] = True
    return rejected
