"""Which GPU each of a study's processes takes: one card each, in turn."""

from __future__ import annotations

import os
from collections.abc import Mapping

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def environment_of(worker: int) -> dict[str, str]:
    """What the process number ``worker`` (0 is this one) is started with.

    It sees its own card alone, of those that this one may see; where there is none nothing is changed.
    """
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {**os.environ, **card_of(worker, os.environ, found)}


def card_of(worker: int, environment: Mapping[str, str], found: int) -> dict[str, str]:
    """The variable that names the worker's card, of the ``found`` ones that torch sees under ``environment``:
    numbers, or the names that were chosen there."""
    if not found:
        return {}
    chosen = [each.strip() for each in environment.get(_VISIBLE, "").split(",") if each.strip()]
    cards = (chosen or [str(number) for number in range(found)])[:found]
    return {_VISIBLE: cards[worker % len(cards)]}
