"""What a run says of an arm when it happens, and no verdict rests on."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from auditor._journal.lines import NoteLine


def not_kept(arm: str, changed: Mapping[str, Tensor]) -> NoteLine:
    """The disk had no room for what makes ``arm``."""
    size = sum(each.numel() * each.element_size() for each in changed.values()) / 2**30
    return NoteLine(
        text=f"The disk has no room to keep the weights of {arm} ({size:.2g} GiB, and as much to spare): a "
        "run that goes on trains it again, and images of other weights do not count."
    )


def in_passes(arm: str, rows: int) -> NoteLine:
    """Memory did not hold the images of a training step at once."""
    return NoteLine(
        text=f"Memory ran out while {arm} was trained: of a step's images {rows} went through the denoiser "
        "at once, with the gradient of the same mean. Its last bits hang on that."
    )
