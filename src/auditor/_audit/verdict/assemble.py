"""Plan and counted journal in, report out. Pure; the verdict itself is made in :mod:`decide` alone
(verdict.md).

PASS needs every planned cell held, every control it rests on passed and a whole ledger; FAIL needs one proven
cell, after Holm, with the negative control of its own arm; whatever else happened is INCONCLUSIVE, or ERROR
where something that was planned broke. The numbers come from :mod:`auditor._audit.evidence.sequential_tests`;
here they are put into words.
"""

from __future__ import annotations

from auditor._audit.evidence.counts import Tally
from auditor._audit.plan import Plan
from auditor._audit.verdict.controls import controls
from auditor._audit.verdict.decide import decide
from auditor._audit.verdict.detectors import other_detectors
from auditor._audit.verdict.effect import other_ways
from auditor._audit.verdict.facts import Facts
from auditor._audit.verdict.integrity import beside_unet
from auditor._audit.verdict.ledger import assumptions, ledger
from auditor._audit.verdict.next_step import next_step
from auditor._audit.verdict.over_updates import over_updates
from auditor._audit.verdict.pictures import after_updates, damaged, pictures
from auditor._audit.verdict.rates import cells, quality, resurgence
from auditor._audit.verdict.training_seeds import replicates, steps_to_resurgence
from auditor.report import (
    Cause,
    CheckpointFacts,
    Distance,
    MetricResult,
    Outcome,
    PolicyPlace,
    Provenance,
    Report,
    TrainingSet,
)


def report_of(
    plan: Plan,
    tally: Tally,
    *,
    title: str,
    checkpoint: CheckpointFacts,
    base: CheckpointFacts | None,
    provenance: Provenance,
    policy_file: PolicyPlace | None = None,
    weaker: tuple[str, ...] = (),
    exploratory: str | None = None,
) -> Report:
    """Give the verdict on what ``tally`` holds of ``plan``; an ``exploratory`` one is no PASS."""
    facts = Facts(plan, tally)
    found = controls(facts)
    all_cells = list(cells(facts))
    counted, drawn_over = ledger(facts), over_updates(facts)
    unseen = sum(len(line.samples) for line in tally.earlier_batches) if tally.earlier is None else 0
    verdict = decide(
        facts, found, all_cells, counted, drawn_over, provenance.replay, unseen, tuple(tally.devices)
    )
    if exploratory is not None:
        passed = verdict.outcome is Outcome.PASS
        outcome = Outcome.INCONCLUSIVE if passed else verdict.outcome
        reasons = (exploratory, *verdict.reasons)
        causes = verdict.causes
        if outcome is Outcome.INCONCLUSIVE:
            causes = (Cause.NOT_ONE_EVIDENCE,) * (len(reasons) - len(causes)) + causes
        verdict = verdict.model_copy(update={"outcome": outcome, "reasons": reasons, "causes": causes})
    step = None
    if exploratory is None:
        step = next_step(facts, verdict, found, counted, provenance, unseen)
    return Report(
        title=title,
        verdict=verdict,
        exploratory=exploratory,
        next_step=step,
        checkpoint=checkpoint,
        base=base,
        policy_digest=plan.policy_digest,
        policy=plan.policy.model_dump(mode="json"),
        policy_file=policy_file,
        gate=tally.decisions.sentence,
        other_ways=tuple(other_ways(plan)),
        controls=found,
        cells=tuple(all_cells),
        other_detectors=tuple(other_detectors(facts)),
        resurgence=tuple(resurgence(facts)),
        population=drawn_over,
        replicates=tuple(replicates(facts, found)),
        steps=tuple(steps_to_resurgence(facts, found)),
        quality=tuple(quality(facts)),
        metrics=tuple(
            MetricResult.model_validate(line.model_dump(exclude={"kind", "seconds"}))
            for line in tally.metrics.values()
        ),
        beside_unet=tuple(beside_unet(facts)),
        weaker=weaker,
        distances=tuple(
            Distance(part=part, relative=r, cosine=c) for part, (r, c) in tally.distances.items()
        ),
        training=tuple(
            TrainingSet.model_validate(line.model_dump(exclude={"kind", "seconds"}))
            for line in tally.training.values()
        ),
        pictures=tuple(pictures(facts)),
        damaged=tuple(damaged(facts)),
        after_updates=tuple(after_updates(facts, drawn_over)),
        ledger=counted,
        assumptions=tuple(assumptions(facts)),
        provenance=provenance,
    )


def would_pass(plan: Plan, tally: Tally) -> bool:
    """Is a look at what earlier processes left all that a PASS still needs?"""
    facts = Facts(plan, tally)
    devices = tuple(tally.devices)
    found = decide(
        facts, controls(facts), list(cells(facts)), ledger(facts), over_updates(facts), devices=devices
    )
    return found.outcome is Outcome.PASS
