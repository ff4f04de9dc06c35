"""Which images a report shows."""

from __future__ import annotations

from collections.abc import Iterator

from auditor._audit.cells import Cell, Role
from auditor._audit.evidence.decisions import HIT, MISS
from auditor._audit.verdict.facts import Facts
from auditor._journal.lines import Sample
from auditor.report import Picture, Population

_FIRST_IMAGES = 4  # of each prompt
_MOST_ROWS = 200  # of each concept
_MOST_DAMAGED, _OF_EACH = 24, 4  # retained pairs, in all and of each model state
_MOST_UPDATES = 4  # of which images are shown


def pictures(facts: Facts) -> Iterator[Picture]:
    """Of every erased concept, in every arm: the first images of each prompt, the first of them the
    paper's "representative" choice; and the prompts and numbers at which the concept was seen after
    erasure.
    """
    decisions = facts.tally.decisions
    cells = [cell for cell in facts.plan.cells if cell.role in (Role.GATE, Role.PICTURE)]
    wanted = {
        surface: _rows_to_show(facts, [cell for cell in cells if cell.surface == surface])
        for surface in {c.surface for c in cells}
    }
    for cell in cells:
        for sample in facts.tally.drawn(cell):
            if (sample.prompt, sample.index) in wanted[cell.surface] and sample.image and sample.observations:
                yield Picture(
                    arm=cell.arm,
                    concept=cell.surface,
                    prompt=sample.prompt,
                    index=sample.index,
                    image=sample.image,
                    hit=decisions.decided(sample.observations, cell.concept) == HIT,
                    label=decisions.label(sample.observations),
                    score=decisions.score(sample.observations, cell.concept),
                )


def _rows_to_show(facts: Facts, cells: list[Cell]) -> set[tuple[str, int]]:
    """(prompt, number) of what is shown of one concept, at most so many."""
    first, decisions = dict[str, int](), facts.tally.decisions
    ranks: dict[tuple[str, int], int] = {}
    for cell in cells:
        for sample in facts.tally.drawn(cell):
            judged = facts.plan.arm(cell.arm).is_judged
            seen = judged and decisions.decided(sample.observations, cell.concept) == HIT
            first[sample.prompt] = min(sample.index, first.get(sample.prompt, sample.index))
            if seen:
                ranks[sample.prompt, sample.index] = 1
            elif sample.index < _FIRST_IMAGES:
                ranks.setdefault((sample.prompt, sample.index), 2)
    begun = dict.fromkeys(first.items())
    seen_rows = sorted(
        (row for row, rank in ranks.items() if rank == 1 and row not in begun), key=lambda row: row[1]
    )
    others = sorted(
        (row for row, rank in ranks.items() if rank == 2 and row not in begun), key=lambda row: row[1]
    )
    shown = [*list(begun)[: _MOST_ROWS // 2], *seen_rows]
    return set([*shown, *others][:_MOST_ROWS])


def damaged(facts: Facts) -> Iterator[Picture]:
    """Retained images that the base shows as what they should be and a model state does not, each after the
    base's of the same prompt and noise. First what every model state lost most, by the gate's score where it
    gives one; then the next of each."""
    ranked: list[tuple[int, float, Picture, Picture]] = []
    for arm in facts.judged:
        if arm.retained_by is not None:
            continue
        cell, partner = facts.plan.retained_of(arm.name), facts.plan.retained_partner(arm.name)
        if cell is None or partner is None:
            continue
        lost = sorted(_lost(facts, partner, cell), key=lambda pair: -pair[0])[:_OF_EACH]
        ranked += [(rank, -fall, before, after) for rank, (fall, before, after) in enumerate(lost)]
    ranked.sort(key=lambda row: row[:2])
    for _, _, before, after in ranked[:_MOST_DAMAGED]:
        yield before
        yield after


def after_updates(facts: Facts, found: Population | None) -> Iterator[Picture]:
    """Images in which the gate saw an erased concept after an update: some of each of the updates with the
    highest rates."""
    seen = [each for each in (() if found is None else found.updates) if any(r.hits for r in each.rates)]
    seen.sort(key=lambda each: -max(rate.hits / rate.images for rate in each.rates if rate.images))
    decided = facts.tally.decisions.decided
    for update in seen[:_MOST_UPDATES]:
        shown = [
            _picture(facts, update.name, cell.concept, sample)
            for cell in facts.plan.cells_of(update.name)
            if cell.role is Role.UPDATE
            for sample in facts.tally.drawn(cell)
            if sample.image and sample.observations and decided(sample.observations, cell.concept) == HIT
        ]
        yield from shown[:_OF_EACH]


def _lost(facts: Facts, partner: Cell, cell: Cell) -> Iterator[tuple[float, Picture, Picture]]:
    """(fall of the score, the base's image, the model state's) wherever only the base's is right."""
    decisions = facts.tally.decisions
    concepts = {(one.prompt, one.index, one.seed): one.concept for one in facts.tally.planned(cell)}
    before = {(one.prompt, one.index, one.seed): one for one in facts.tally.drawn(partner)}
    for after in facts.tally.drawn(cell):
        key = after.prompt, after.index, after.seed
        base, concept = before.get(key), concepts[key]
        if base is None or not base.image or not after.image:
            continue
        said = [decisions.decided(one.observations, concept) for one in (base, after)]
        if said == [HIT, MISS]:
            pair = [_picture(facts, each.arm, concept, one) for each, one in ((partner, base), (cell, after))]
            yield (pair[0].score or 0.0) - (pair[1].score or 0.0), pair[0], pair[1]


def _picture(facts: Facts, arm: str, concept: str, sample: Sample) -> Picture:
    """An image, as the gate sees ``concept`` in it."""
    decisions = facts.tally.decisions
    return Picture(
        arm=arm,
        concept=concept,
        prompt=sample.prompt,
        index=sample.index,
        image=sample.image or "",
        hit=decisions.decided(sample.observations, concept) == HIT,
        label=decisions.label(sample.observations),
        score=decisions.score(sample.observations, concept),
    )
