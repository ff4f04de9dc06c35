"""The metrics that come with auditor."""

from __future__ import annotations

from auditor.builtins.metrics.clip_score import ClipScore
from auditor.builtins.metrics.distances import ClipFrechet, ClipKernel
from auditor.builtins.metrics.fid import Fid
from auditor.builtins.metrics.outcomes import HarmonicMean, RetainedAccuracy
from auditor.plugin import hookimpl
from auditor.plugin.contracts import Metric


@hookimpl
def auditor_register_metrics() -> list[type[Metric]]:
    """The built-in metrics."""
    return [ClipScore, ClipFrechet, ClipKernel, Fid, RetainedAccuracy, HarmonicMean]
