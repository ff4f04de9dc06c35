"""Every hook that auditor calls. A hook hands over classes: no input or output, no torch import, no model."""

from __future__ import annotations

import pluggy

from auditor.plugin.contracts import Detector, Eraser, Probe, Reporter

hookspec = pluggy.HookspecMarker("auditor")


@hookspec
def auditor_register_probes() -> list[type[Probe]]:
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
def auditor_register_reporters() -> list[type[Reporter]]:
    """The reporters of this plugin: pure functions of a report."""
    raise NotImplementedError
