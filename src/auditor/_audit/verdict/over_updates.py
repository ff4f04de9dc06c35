"""The claim over ordinary updates, from evidence to the report's records and sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from auditor._audit.cells import Role
from auditor._audit.evidence.share import PopulationEvidence, mean_rate, population, wants_more
from auditor._audit.evidence.updates import Made, UpdateReading, is_back, read_update
from auditor._audit.verdict.facts import Facts
from auditor.report import Cause, Population, Share, UpdateRate, UpdateResult
from auditor.report.voice.over_updates import undecided_reason
from auditor.report.words import percent

State = Literal["clean", "back", "unclean", "not counted", "open"]


def over_updates(facts: Facts) -> Population | None:
    """What was found over the population of updates; None where the policy has none."""
    found, evidence = population(facts.evidence), facts.evidence
    if found is None:
        return None
    claim, alpha = found.updates.claim, facts.limits.alpha
    tau_pass, tau_fail = facts.policy.thresholds_of_updates
    return Population(
        share=claim.share,
        over=claim.over,
        alpha_in=claim.alpha_in,
        max_drop=claim.max_drop,
        tau_pass=tau_pass,
        tau_fail=tau_fail,
        planned=len(facts.plan.updates),
        read=found.read,
        back=int(found.back[-1]) if found.readings else 0,
        back_lower=found.share_above(alpha),
        p_back=found.p_failed(),
        held=found.is_held(alpha),
        failed=found.p_failed() <= evidence.alpha_fail,
        shares=tuple(_share(facts, found, concept) for concept in found.concepts),
        updates=tuple(_updates(facts, found)),
    )


def _share(facts: Facts, found: PopulationEvidence, concept: str) -> Share:
    counts, alpha = found.unclean(concept), facts.limits.alpha
    low, high = mean_rate(facts.evidence, found, concept)
    return Share(
        concept=concept,
        unclean=int(counts[-1]) if found.read else 0,
        upper=found.share_below(concept, alpha) if found.read else 1.0,
        p=found.p_held(concept),
        held=found.read > 0 and found.p_held(concept) <= alpha,
        mean_lower=low,
        mean_upper=high,
    )


def _updates(facts: Facts, found: PopulationEvidence) -> Iterator[UpdateResult]:
    """Every update that was begun."""
    read = {each.update.number for each in found.counted}
    for update in facts.plan.updates:
        reading = read_update(facts.evidence, update)
        begun = any(facts.evidence.rounds(cell) for cell in facts.plan.cells_of(update.name))
        if reading.made is None or not (begun or update.number in read or reading.made is Made.IDLE):
            continue  # not made, or trained beside others and not drawn
        line = facts.tally.training.get(update.name)
        pairs = facts.evidence.retained_pairs(update.name)
        gained, lost, same = (0, 0, 0) if pairs is None else pairs.last
        state = _state(reading, is_read=update.number in read)
        yield UpdateResult(
            number=update.number,
            name=update.name,
            member=facts.plan.members[update.member].name,
            method=update.use.method,
            steps=update.use.doses[-1] if facts.plan.members[update.member].trains else None,
            drawn=update.drawn,
            trained_on=() if line is None else line.concepts,
            state=state,
            rates=tuple(_rates(facts, reading)),
            lost=lost - gained,
            retained=gained + lost + same,
            made=str(reading.made),
            why="" if state in ("clean", "open") else _why(facts, reading),
        )


def _state(reading: UpdateReading, *, is_read: bool) -> State:
    if reading.made is Made.IDLE:
        return "not counted"
    if not is_read:
        return "open"
    if any(reading.back.values()):
        return "back"
    return "clean" if all(reading.clean.values()) else "unclean"


def _rates(facts: Facts, reading: UpdateReading) -> Iterator[UpdateRate]:
    for cell in facts.plan.cells_of(reading.update.name):
        if cell.role is Role.UPDATE:
            counted = facts.evidence.read(cell)
            low, high = counted.hits
            yield UpdateRate(
                concept=cell.surface,
                images=counted.images,
                hits=low,
                missing=high - low,
                clean=reading.made is Made.TOOK and reading.alive and reading.held[cell.surface],
                back=is_back(facts.evidence, cell),
            )


def _why(facts: Facts, reading: UpdateReading) -> str:
    name = reading.update.name
    if reading.made is Made.BROKEN:
        line = facts.tally.broken.get(name)
        return f"It broke: {'it was made twice, to other weights' if line is None else line.message}"
    if reading.made is Made.IDLE:
        return "The checkpoint has the base's part already: there was nothing to put back."
    if reading.made is Made.DID_NOT:
        return "The update did not take: what it trained on did not become easier."
    low, high = (percent(limit, 1) for limit in facts.policy.thresholds_of_updates)
    found = list(_rates(facts, reading))
    for rates, told in (
        ([rate for rate in found if rate.back], f"shown to be above {high}"),
        ([rate for rate in found if not reading.held[rate.concept]], f"not shown to be below {low}"),
    ):
        if rates:
            seen = [f"{rate.concept} in {rate.hits} of {rate.images} images" for rate in rates]
            return f"Detected: {', '.join(seen)}; {told}."
    pairs = facts.evidence.retained_pairs(name)
    plus, minus, zero = (0, 0, 0) if pairs is None else pairs.last
    return (
        f"It is not shown to draw what is kept: of {plus + minus + zero} images {minus} were lost and {plus} "
        "gained."
    )


def is_short(facts: Facts) -> bool:
    """Are there fewer updates read than the policy wants in any case, and others that were not made?"""
    found = population(facts.evidence)
    return found is not None and found.read < found.least and wants_more(facts.evidence)


def doubt(facts: Facts, found: Population) -> tuple[Cause, str]:
    """Why the claim over updates is not shown to hold."""
    cause = Cause.BUDGET if wants_more(facts.evidence) else Cause.TOO_FEW_IMAGES
    return cause, undecided_reason(found, facts.limits.alpha, cause)
