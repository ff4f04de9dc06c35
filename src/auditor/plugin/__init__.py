"""All that a plugin is written with: import it from here, and from :mod:`auditor.testing` in its tests.

Contracts to subclass, the records that hooks get, the documents they are handed, errors to raise, and helpers
for training and for closed-form edits. Names are found when they are first used: importing this module loads
no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import pluggy

from auditor._files.entry_points import API_VERSION

if TYPE_CHECKING:
    from auditor._checkpoint.adapters.merge import merge_lora
    from auditor._diffusion.closed_form import cross_gram, gram, refinement
    from auditor._diffusion.denoising import Passes, noised_prediction, training_draw
    from auditor._diffusion.finetune import Examples, Training, finetune
    from auditor._diffusion.model import DiffusionModel
    from auditor._diffusion.sampling import draw
    from auditor._files.safetensors_header import read_header
    from auditor._journal.lines import Sample
    from auditor._process.device import best_device
    from auditor.errors import AuditorError, PluginError, RefusedError, UsageError
    from auditor.families.family import Condition
    from auditor.plugin._door import call, iterate, title
    from auditor.plugin._loader import make_plugin
    from auditor.plugin.contracts import (
        Answers,
        AnyProbe,
        Box,
        Boxes,
        Detection,
        Detector,
        Eraser,
        Erasure,
        ImageOutcome,
        Labels,
        MaskRequest,
        MaskSource,
        Metric,
        OptionsModel,
        Plugin,
        Probe,
        ProbeSetting,
        PromptProbe,
        Reporter,
        SamplingProbe,
        TrainingRequest,
        Update,
        WeightProbe,
    )
    from auditor.plugin.fine_tune import FineTune, FineTuneOptions
    from auditor.plugin.records import ArmReady, BatchMeasured, ReportWritten, RunStarted
    from auditor.policy import Concept, Policy, Sampler, as_read, entry_called, recognised_in
    from auditor.policy.concepts.sets import ConceptNames, PromptTemplates
    from auditor.report import Report

hookimpl = pluggy.HookimplMarker("auditor")
"""Marks a function as an implementation of one of the hooks in :mod:`auditor.plugin.hookspecs`."""

_HOMES = {
    "auditor._files.pictures": ("read_picture",),
    "auditor._files.safetensors_header": ("read_header",),
    "auditor._diffusion.closed_form": ("cross_gram", "gram", "refinement"),
    "auditor._diffusion.denoising": ("Passes", "noised_prediction", "training_draw"),
    "auditor._diffusion.finetune": ("Examples", "Training", "finetune"),
    "auditor._checkpoint.adapters.merge": ("merge_lora",),
    "auditor._diffusion.model": ("DiffusionModel",),
    "auditor._diffusion.sampling": ("draw",),
    "auditor._journal.lines": ("Sample",),
    "auditor._process.device": ("best_device",),
    "auditor.errors": ("AuditorError", "PluginError", "RefusedError", "UsageError"),
    "auditor.families.family": ("Condition",),
    "auditor.plugin._door": ("call", "iterate", "title"),
    "auditor.plugin._loader": ("make_plugin",),
    "auditor.plugin.contracts": (
        "Answers",
        "AnyProbe",
        "Box",
        "Boxes",
        "Detection",
        "Detector",
        "Eraser",
        "Erasure",
        "ImageOutcome",
        "Labels",
        "MaskRequest",
        "MaskSource",
        "Metric",
        "OptionsModel",
        "Plugin",
        "Probe",
        "ProbeSetting",
        "PromptProbe",
        "Reporter",
        "SamplingProbe",
        "TrainingRequest",
        "Update",
        "WeightProbe",
    ),
    "auditor.plugin.fine_tune": ("FineTune", "FineTuneOptions"),
    "auditor.plugin.records": ("ArmReady", "BatchMeasured", "ReportWritten", "RunStarted"),
    "auditor.policy": ("Concept", "Policy", "Sampler", "as_read", "entry_called", "recognised_in"),
    "auditor.policy.concepts.sets": ("ConceptNames", "PromptTemplates"),
    "auditor.report": ("Report",),
}

__all__ = [
    "API_VERSION",
    "Answers",
    "AnyProbe",
    "ArmReady",
    "AuditorError",
    "BatchMeasured",
    "Box",
    "Boxes",
    "Concept",
    "ConceptNames",
    "Condition",
    "Detection",
    "Detector",
    "DiffusionModel",
    "Eraser",
    "Erasure",
    "Examples",
    "FineTune",
    "FineTuneOptions",
    "ImageOutcome",
    "Labels",
    "MaskRequest",
    "MaskSource",
    "Metric",
    "OptionsModel",
    "Passes",
    "Plugin",
    "PluginError",
    "Policy",
    "Probe",
    "ProbeSetting",
    "PromptProbe",
    "PromptTemplates",
    "RefusedError",
    "Report",
    "ReportWritten",
    "Reporter",
    "RunStarted",
    "Sample",
    "Sampler",
    "SamplingProbe",
    "Training",
    "TrainingRequest",
    "Update",
    "UsageError",
    "WeightProbe",
    "as_read",
    "best_device",
    "call",
    "cross_gram",
    "draw",
    "entry_called",
    "finetune",
    "gram",
    "hookimpl",
    "iterate",
    "make_plugin",
    "merge_lora",
    "noised_prediction",
    "read_header",
    "read_picture",
    "recognised_in",
    "refinement",
    "title",
    "training_draw",
]


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'auditor.plugin' has no attribute '{name}'")
    return getattr(importlib.import_module(home), name)
