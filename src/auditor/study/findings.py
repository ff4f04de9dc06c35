"""Reads what was measured: rates of each arm, and their tidy table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from auditor.study.expand import StudySample
from auditor.study.store import ArmRecord


def shares_of(samples: Sequence[StudySample], record: ArmRecord, detector: str | None = None) -> dict[str, float]:
    """The share of images in which a detector (the first, unless named) saw their concept, by role; missing images are left out."""
    hits: dict[str, list[bool]] = defaultdict(list)
    for sample, outcome in zip(samples, record.outcomes, strict=True):
        if outcome.hits:
            hits[sample.role].append(next(iter(outcome.hits.values())) if detector is None else outcome.hits[detector])
    return {role: sum(own) / len(own) for role, own in hits.items()}
