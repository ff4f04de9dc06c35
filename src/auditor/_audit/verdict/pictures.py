"""Which images a report shows."""

from __future__ import annotations

from collections.abc import Iterator

from auditor._audit.cells import Cell, Role
from auditor._audit.evidence.decisions import HIT
from auditor._audit.verdict.facts import Facts
from auditor.report import Picture

_FIRST_IMAGES = 4  # of each prompt
_MOST_ROWS = 200  # of each concept


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
