"""What every part of a verdict is read from: one plan, its counted journal, and the evidence in it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from auditor._audit.cells import Arm
from auditor._audit.evidence.counts import Tally
from auditor._audit.evidence.sequential_tests import Evidence, Reading
from auditor._audit.plan import Plan
from auditor.policy import Limits, Policy

_NONE = np.empty(0, np.int64)
NOTHING = Reading(_NONE, _NONE, _NONE, whole=False)
"""The reading of a cell that was not planned."""


@dataclass(frozen=True)
class Facts:
    """One plan and one counted journal. What is derived from them is worked out once."""

    plan: Plan
    tally: Tally

    @cached_property
    def evidence(self) -> Evidence:
        """The tests of a verdict on what was counted."""
        return self.tally.evidence()

    @property
    def policy(self) -> Policy:
        """What is demanded."""
        return self.plan.policy

    @property
    def limits(self) -> Limits:
        """The policy's limits."""
        return self.plan.policy.limits

    @cached_property
    def failed(self) -> frozenset[str]:
        """Names of the cells that are proven to be above the limit, after Holm."""
        return frozenset(cell.name for cell in self.evidence.failed_cells())

    @property
    def judged(self) -> list[Arm]:
        """The arms that decide, each by itself: all but the base and the updates of a population."""
        return [arm for arm in self.plan.arms if arm.is_named]

    @property
    def surfaces(self) -> list[str]:
        """What prompts name of each erased concept: its name, and synonyms that decide."""
        return [cell.surface for cell in self.plan.gate_cells if cell.arm == "erased"]
