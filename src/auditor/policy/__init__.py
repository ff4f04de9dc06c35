"""What is demanded of a checkpoint: the policy file, the concepts and prompts that it can name, and
presets for new ones."""

from auditor.policy.concept import Concept, Concepts
from auditor.policy.decision import Decision, Gate, Vote
from auditor.policy.document import (
    Base,
    Budget,
    DetectorUse,
    Limits,
    MetricUse,
    Policy,
    PolicyFile,
    ProbeUse,
    Sampler,
    as_read,
    forbidden_names,
    load_policy,
    read_policy,
)
from auditor.policy.fields import StrictModel

__all__ = [
    "Base",
    "Budget",
    "Concept",
    "Concepts",
    "Decision",
    "DetectorUse",
    "Gate",
    "Limits",
    "MetricUse",
    "Policy",
    "PolicyFile",
    "ProbeUse",
    "Sampler",
    "StrictModel",
    "Vote",
    "as_read",
    "forbidden_names",
    "load_policy",
    "read_policy",
]
