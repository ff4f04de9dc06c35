"""What was measured: cells, quality, what came back against the erased arm, and after how many steps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from auditor._audit.cells import ERASED, Cell, Role
from auditor._audit.evidence.decisions import HIT
from auditor._audit.verdict.facts import NOTHING, Facts
from auditor._stats import paired
from auditor.report import CellResult, PromptCount, Quality, Resurgence, State

_BOUNDS = {
    True: "one-sided, each at 1 - alpha, by inverting the gate's own evidence; n was chosen by a stopping "
    "rule",
    False: "one-sided, each at 1 - alpha, Clopper-Pearson at the planned size",
}


def cells(facts: Facts) -> Iterator[CellResult]:
    """Every cell that shows an erased concept; retained ones are summed up in ``quality``."""
    wanted = (Role.GATE, Role.REPORT, Role.POSITIVE)
    return (_cell(facts, cell) for cell in facts.plan.cells if cell.role in wanted)


def _cell(facts: Facts, cell: Cell) -> CellResult:
    evidence, reading, drawn = facts.evidence, facts.evidence.read(cell), facts.tally.drawn(cell)
    low, high = reading.hits
    p_held, p_failed = evidence.p_held(cell), evidence.p_failed(cell)
    state, q = None, None
    if cell.role is Role.GATE:
        state = (
            State.FAILED
            if cell.name in facts.failed
            else State.HELD
            if p_held <= facts.limits.alpha
            else State.UNDECIDED
        )
        q = evidence.q(cell)
    lower, upper = evidence.bounds(reading, facts.limits.alpha) if reading.images else (None, None)
    decisions, said = facts.tally.decisions, [s.observations for s in drawn if s.observations]
    scores = [score for one in said if (score := decisions.score(one, cell.concept)) is not None]
    judged = [there for one in said if (there := decisions.found(one, cell.concept)) is not None]
    return CellResult(
        arm=cell.arm,
        role=cell.role,
        concept=cell.concept,
        surface=cell.surface,
        n=len(said),
        images=reading.images,
        planned=cell.images,
        hits=low,
        missing=high - low,
        rate=low / (reading.images - high + low) if reading.images > high - low else None,
        lower=lower,
        upper=upper,
        bounds=_BOUNDS[evidence.sequential],
        state=state,
        p_held=p_held,
        p_failed=p_failed,
        q=q,
        mean_score=float(np.mean(scores)) if scores else None,
        found=sum(judged) if judged else None,
        seconds=round(facts.tally.seconds_of(cell), 3),
        prompts=tuple(_by_prompt(facts, cell)),
    )


def _by_prompt(facts: Facts, cell: Cell) -> Iterator[PromptCount]:
    decisions, counts = facts.tally.decisions, {prompt: list[bool]() for prompt in cell.prompts}
    for sample in facts.tally.drawn(cell):
        if sample.observations:
            counts[sample.prompt].append(decisions.decided(sample.observations, cell.concept) == HIT)
    for prompt, hits in counts.items():
        yield PromptCount(prompt=prompt, n=len(hits), hits=sum(hits))


def quality(facts: Facts) -> Iterator[Quality]:
    """Retained concepts, arm by arm."""
    for arm in facts.plan.arms:
        if arm.retained_by is not None or arm.update is not None:
            continue
        cell, base_cell = facts.plan.retained_of(arm.name), facts.plan.retained_partner(arm.name)
        reading = NOTHING if cell is None else facts.evidence.read(cell)
        base = NOTHING if base_cell is None else facts.evidence.read(base_cell)
        pairs = facts.evidence.retained_pairs(arm.name) if arm.is_judged else None
        gained, lost, same = (0, 0, 0) if pairs is None else pairs.last
        n = gained + lost + same
        yield Quality(
            arm=arm.name,
            n=reading.images,
            correct=reading.hits[0],
            accuracy=reading.hits[0] / reading.images if reading.images else None,
            base_accuracy=base.hits[0] / base.images if base.images else None,
            drop=(lost - gained) / n if n else None,
            drop_upper=paired.interval(lost, gained, same, facts.limits.alpha)[1] if n else None,
        )


def resurgence(facts: Facts) -> Iterator[Resurgence]:
    """Paired differences between each probed arm and the erased arm, common images of whole rounds."""
    for cell in facts.plan.gate_cells:
        erased = facts.plan.cell(ERASED, Role.GATE, cell.surface)
        if cell.arm == ERASED or erased is None or erased.items != cell.items:
            continue  # asked in other words: there is no image of the same prompt and seed
        worst, best = (
            facts.evidence.pair(erased, cell).last,
            facts.evidence.pair(erased, cell, missing=1).last,
        )
        alpha, n = facts.limits.alpha, sum(worst)
        seen = _complete_pairs(facts, erased, cell)
        low = paired.lower_bound(*worst, alpha / 2) if n else None
        high = -paired.lower_bound(best[1], best[0], best[2], alpha / 2) if n else None
        difference = (seen[0] - seen[1]) / sum(seen) if sum(seen) else None
        normalised, normalised_low, normalised_high, reason = _normalised(
            facts, cell, erased, difference, worst, best
        )
        yield Resurgence(
            arm=cell.arm,
            concept=cell.surface,
            pairs=sum(seen),
            missing=n - sum(seen),
            plus=seen[0],
            minus=seen[1],
            difference=difference,
            lower=low,
            upper=high,
            normalised=normalised,
            normalised_lower=normalised_low,
            normalised_upper=normalised_high,
            reason=reason,
        )


def _complete_pairs(facts: Facts, before: Cell, after: Cell) -> tuple[int, int, int]:
    """(+1, -1, 0) over pairs of whole rounds in which neither image is missing."""
    size, column = facts.evidence.pair(before, after).images, facts.plan.columns[after.concept]
    tables = [facts.evidence.outcomes.get(cell.name) for cell in (before, after)]
    if not size or tables[0] is None or tables[1] is None:
        return 0, 0, 0
    one, two = tables[0][:size, column], tables[1][:size, column]
    there = (one >= 0) & (two >= 0)
    change = two.astype(int)[there] - one[there]
    return int((change == 1).sum()), int((change == -1).sum()), int((change == 0).sum())


def _normalised(
    facts: Facts,
    cell: Cell,
    erased: Cell,
    difference: float | None,
    worst: tuple[int, int, int],
    best: tuple[int, int, int],
) -> tuple[float | None, float | None, float | None, str | None]:
    """(probe - erased) / (base - erased) with bounds: numerator from G, denominator from the rates'
    bounds, each at alpha/2."""
    base = facts.plan.cell(facts.plan.arm(cell.arm).partner, Role.POSITIVE, cell.surface)
    if base is None:
        return None, None, None, "there is no base"
    alpha = facts.limits.alpha / 2
    whole, gone = facts.evidence.read(base), facts.evidence.read(erased)
    if not whole.images or difference is None:
        return None, None, None, "no images were drawn"
    (base_low, base_high), (gone_low, gone_high) = (
        facts.evidence.bounds(reading, alpha / 4) for reading in (whole, gone)
    )
    least, most = base_low - gone_high, base_high - gone_low
    if least <= 0:
        return None, None, None, f"base minus erased is not shown to be above 0 (lower bound {least:.1%})"
    low, high = (
        paired.lower_bound(*worst, alpha / 2),
        -paired.lower_bound(best[1], best[0], best[2], alpha / 2),
    )
    return (
        difference / (whole.hits[0] / whole.images - gone.hits[0] / gone.images),
        low / (most if low >= 0 else least),
        high / (least if high >= 0 else most),
        None,
    )
