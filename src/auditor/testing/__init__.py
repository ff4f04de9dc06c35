"""What plugin authors test with.

Subclass a conformance class and get the tests that every plugin of its kind must pass; the fixtures ``micro``
and ``fake`` (:class:`Kit`) have models, images, an erased checkpoint and a finished run.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from auditor._audit.run_folder.arms import digest_of_arm
    from auditor.testing.detectors import DetectorConformance
    from auditor.testing.erasers import EraserConformance, MaskSourceConformance
    from auditor.testing.fake import fake_checkpoint
    from auditor.testing.kit import Kit
    from auditor.testing.metrics import MetricConformance
    from auditor.testing.other_probes import PromptProbeConformance, SamplingProbeConformance
    from auditor.testing.probes import ProbeConformance
    from auditor.testing.reporters import ReporterConformance

__all__ = [
    "DetectorConformance",
    "EraserConformance",
    "Kit",
    "MaskSourceConformance",
    "MetricConformance",
    "ProbeConformance",
    "PromptProbeConformance",
    "ReporterConformance",
    "SamplingProbeConformance",
    "digest_of_arm",
    "fake_checkpoint",
]

_HOMES = {
    "DetectorConformance": "auditor.testing.detectors",
    "EraserConformance": "auditor.testing.erasers",
    "Kit": "auditor.testing.kit",
    "MaskSourceConformance": "auditor.testing.erasers",
    "MetricConformance": "auditor.testing.metrics",
    "ProbeConformance": "auditor.testing.probes",
    "PromptProbeConformance": "auditor.testing.other_probes",
    "ReporterConformance": "auditor.testing.reporters",
    "SamplingProbeConformance": "auditor.testing.other_probes",
    "digest_of_arm": "auditor._audit.run_folder.arms",
    "fake_checkpoint": "auditor.testing.fake",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'auditor.testing' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
