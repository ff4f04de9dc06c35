"""The mask sources that come with auditor."""

from __future__ import annotations

from auditor.masks.folder import FolderMasks
from auditor.masks.grounded_sam import GroundedSam
from auditor.masks.simple import AttentionMasks, WholeImage
from auditor.plugin import hookimpl
from auditor.plugin.contracts import MaskSource


@hookimpl
def auditor_register_masks() -> list[type[MaskSource]]:
    """The built-in mask sources."""
    return [AttentionMasks, WholeImage, GroundedSam, FolderMasks]
