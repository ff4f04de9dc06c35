"""The classes that plugin authors subclass: metadata, an ``Options`` model, one or two methods each.

This API is number 1 (:data:`auditor.plugin.API_VERSION`). Within a number it only gains: fields and arguments
with defaults.

Every method is called through one door (:mod:`auditor.plugin._door`): what it raises becomes an error with
the plugin's name and version, its standard output goes to standard error, and the global random generators
(random, numpy, torch) are seeded for it and put back afterwards. A method that is silent for longer than the
policy's ``budget.plugin_minutes`` ends the process with 5.
"""

from auditor.plugin.contracts.detectors import Answers, Box, Boxes, Detection, Detector, Labels
from auditor.plugin.contracts.erasers import Eraser, Erasure, MaskRequest, MaskSource
from auditor.plugin.contracts.outputs import ImageOutcome, Metric, Reporter
from auditor.plugin.contracts.plugins import Plugin
from auditor.plugin.contracts.probes import (
    AnyProbe,
    Probe,
    ProbeSetting,
    PromptProbe,
    SamplingProbe,
    TrainingRequest,
    Update,
    WeightProbe,
)
from auditor.plugin.options import OptionsModel

__all__ = [
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
]
