"""What is demanded of a checkpoint: the policy file, the concepts and prompts that it can name, and
presets for new ones."""

from auditor.policy.budget import Budget
from auditor.policy.concept import Concept, Concepts
from auditor.policy.decision import Decision, Gate, Vote
from auditor.policy.document import (
    Base,
    DetectorUse,
    Limits,
    MetricUse,
    Policy,
    ProbeUse,
    forbidden_names,
)
from auditor.policy.fields import StrictModel
from auditor.policy.file import PolicyFile, load_policy, read_policy
from auditor.policy.names import as_read, entry_called, oddity_of, recognised_in
from auditor.policy.sampler import Sampler
from auditor.policy.updates import UpdateBudget, UpdateClaim, Updates, UpdateUse

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
    "UpdateBudget",
    "UpdateClaim",
    "UpdateUse",
    "Updates",
    "Vote",
    "as_read",
    "entry_called",
    "forbidden_names",
    "load_policy",
    "oddity_of",
    "read_policy",
    "recognised_in",
]
