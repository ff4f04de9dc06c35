"""Decides: plan and counted journal in, report out. Pure, and the only place where a verdict is made (verdict.md).

PASS needs every planned cell held, every control it rests on passed and a whole ledger; FAIL needs one proven cell, after Holm,
with the negative control of its own arm; whatever else happened is INCONCLUSIVE, or ERROR where something that was planned broke.
The numbers come from :mod:`auditor.evidence`; here they are put into words.
"""

from __future__ import annotations

from auditor.judge.court import Court
from auditor.judge.verdict import decide
from auditor.plan import Plan
from auditor.report import CheckpointFacts, Distance, MetricResult, Outcome, PolicyFile, Provenance, Report, TrainingSet
from auditor.tally import Tally


def judge(
    plan: Plan,
    tally: Tally,
    *,
    title: str,
    checkpoint: CheckpointFacts,
    base: CheckpointFacts | None,
    provenance: Provenance,
    policy_file: PolicyFile | None = None,
    weaker: tuple[str, ...] = (),
) -> Report:
    """Give the verdict on what ``tally`` holds of ``plan``."""
    court = Court(plan, tally)
    cells, ledger = list(court.cells()), court.ledger()
    unseen = sum(len(line.samples) for line in tally.earlier_batches) if tally.earlier is None else 0
    return Report(
        title=title,
        verdict=decide(plan, court.evidence, court.controls, cells, ledger, provenance.replay, unseen),
        checkpoint=checkpoint,
        base=base,
        policy_digest=plan.policy.digest(plan.contents),
        policy=plan.policy.model_dump(mode="json"),
        policy_file=policy_file,
        controls=court.controls,
        cells=tuple(cells),
        resurgence=tuple(court.resurgence()),
        replicates=tuple(court.replicates()),
        steps=tuple(court.steps_to_resurgence()),
        quality=tuple(court.quality()),
        metrics=tuple(MetricResult.model_validate(line.model_dump(exclude={"kind", "seconds"})) for line in tally.metrics.values()),
        beside_unet=tuple(court.beside_unet()),
        weaker=weaker,
        distances=tuple(Distance(part=part, relative=r, cosine=c) for part, (r, c) in tally.distances.items()),
        training=tuple(TrainingSet.model_validate(line.model_dump(exclude={"kind", "seconds"})) for line in tally.training.values()),
        pictures=tuple(court.pictures()),
        ledger=ledger,
        assumptions=tuple(court.assumptions()),
        provenance=provenance,
    )


def would_pass(plan: Plan, tally: Tally) -> bool:
    """Is a look at what earlier processes left all that a PASS still needs?"""
    court = Court(plan, tally)
    return decide(plan, court.evidence, court.controls, list(court.cells()), court.ledger()).outcome is Outcome.PASS
