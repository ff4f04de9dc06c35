"""What detectors beside the gate say of the same images, and how often they agree with it. No verdict rests
on them."""

from __future__ import annotations

from collections.abc import Iterator

from auditor._audit.cells import Cell, Role
from auditor._audit.evidence.decisions import HIT
from auditor._audit.evidence.sequential_tests import MISSING, Evidence
from auditor._audit.verdict.facts import Facts
from auditor.report import DetectorReading


def other_detectors(facts: Facts) -> Iterator[DetectorReading]:
    """A reading for every detector but the gate, which has one where the policy decides otherwise than it
    says itself, and every cell that shows an erased concept.

    Rates and bounds are read as the gate's are; the sequential bounds hold however the number of images came
    about, also by what the gate saw.
    """
    wanted = (Role.GATE, Role.REPORT, Role.POSITIVE)
    for use in facts.policy.detectors:
        if use.use == facts.tally.decisions.gate and facts.tally.decisions.is_its_own:
            continue
        evidence = facts.tally.evidence_of(use.use)
        for cell in facts.plan.cells:
            if cell.role in wanted:
                yield _reading(facts, evidence, use.use, cell)


def _reading(facts: Facts, evidence: Evidence, detector: str, cell: Cell) -> DetectorReading:
    reading = evidence.read(cell)
    (low, high), images = reading.hits, reading.images
    lower, upper = evidence.bounds(reading, facts.limits.alpha) if images else (None, None)
    decisions = facts.tally.decisions
    both = [
        (decisions.decided(said, cell.concept), decisions.of(detector, said, cell.concept))
        for said in (sample.observations for sample in facts.tally.drawn(cell))
    ]
    pairs = [(gate == HIT, own == HIT) for gate, own in both if MISSING not in (gate, own)]
    return DetectorReading(
        detector=detector,
        arm=cell.arm,
        role=cell.role,
        concept=cell.concept,
        surface=cell.surface,
        images=images,
        hits=low,
        missing=high - low,
        rate=low / (images - high + low) if images > high - low else None,
        lower=lower,
        upper=upper,
        compared=len(pairs),
        only_gate=sum(gate and not own for gate, own in pairs),
        only_this=sum(own and not gate for gate, own in pairs),
    )
