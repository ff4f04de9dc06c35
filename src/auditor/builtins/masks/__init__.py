"""The mask sources that come with auditor."""

from __future__ import annotations

from auditor.builtins.masks.folder import FolderMasks
from auditor.builtins.masks.grounded_sam import GroundedSam
from auditor.builtins.masks.simple import AttentionMasks, WholeImage
from auditor.plugin import hookimpl
from auditor.plugin.contracts import MaskSource


@hookimpl
def auditor_register_masks() -> list[type[MaskSource]]:
    """The built-in mask sources."""
    return [AttentionMasks, WholeImage, GroundedSam, FolderMasks]
