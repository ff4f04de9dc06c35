"""Every hook that auditor calls, version 1.

Two kinds. ``auditor_register_*`` hands over classes: no input or output, no torch import, no model. Observers
(the others) are told what happens, get one frozen record each, return nothing and cannot change anything; one
that raises is named in the report and not called again.
"""

from __future__ import annotations

import pluggy

from auditor.plugin.contracts import AnyProbe, Detector, Eraser, MaskSource, Metric, Reporter
from auditor.plugin.records import ArmReady, BatchMeasured, ReportWritten, RunStarted

hookspec = pluggy.HookspecMarker("auditor")


@hookspec
def auditor_register_probes() -> list[type[AnyProbe]]:
    """The probes of this plugin: benign updates to apply to an erased checkpoint."""
    raise NotImplementedError


@hookspec
def auditor_register_detectors() -> list[type[Detector]]:
    """The detectors of this plugin: does an image show a concept?"""
    raise NotImplementedError


@hookspec
def auditor_register_erasers() -> list[type[Eraser]]:
    """The erasers of this plugin: make an erased checkpoint out of a base."""
    raise NotImplementedError


@hookspec
def auditor_register_masks() -> list[type[MaskSource]]:
    """The mask sources of this plugin: where in an image is the concept?"""
    raise NotImplementedError


@hookspec
def auditor_register_metrics() -> list[type[Metric]]:
    """The metrics of this plugin: numbers about a model state's images, beside the verdict."""
    raise NotImplementedError


@hookspec
def auditor_register_reporters() -> list[type[Reporter]]:
    """The reporters of this plugin: pure functions of a report."""
    raise NotImplementedError


@hookspec
def auditor_run_started(record: RunStarted) -> None:
    """A run begins, or goes on where it was interrupted."""
    raise NotImplementedError


@hookspec
def auditor_arm_ready(record: ArmReady) -> None:
    """A model state's weights are made; its images come next."""
    raise NotImplementedError


@hookspec
def auditor_batch_measured(record: BatchMeasured) -> None:
    """A batch of images is in the journal with what the detectors said."""
    raise NotImplementedError


@hookspec
def auditor_report_written(record: ReportWritten) -> None:
    """The verdict is given and written."""
    raise NotImplementedError
