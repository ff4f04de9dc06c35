"""The detectors that come with auditor."""

from __future__ import annotations

from auditor.builtins.detectors.by_domain import ByDomain
from auditor.builtins.detectors.clip_zero_shot import ClipZeroShot
from auditor.plugin import hookimpl
from auditor.plugin.contracts import Detector


@hookimpl
def auditor_register_detectors() -> list[type[Detector]]:
    """The built-in detectors."""
    return [ClipZeroShot, ByDomain]
