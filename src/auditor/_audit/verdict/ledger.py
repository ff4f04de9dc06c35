"""Where every planned image ended, and what a PASS assumes beyond the counts."""

from __future__ import annotations

from collections.abc import Iterator

from auditor._audit.cells import BASE, Cell, Role
from auditor._audit.evidence.counts import Tally
from auditor._audit.evidence.share import wants_more
from auditor._audit.evidence.stopping import rounds_wanted
from auditor._audit.verdict.facts import Facts
from auditor.report import Ledger
from auditor.report.words import RUN_ENDED


def ledger(facts: Facts) -> Ledger:
    """Where every planned sample ended."""
    detectors = {use.use for use in facts.policy.detectors}
    counts = dict.fromkeys(("measured", "missing", "not_needed", "skipped", "unscored", "not_drawn"), 0)
    reasons: list[str] = []
    more = wants_more(facts.evidence)
    for cell in facts.plan.cells:
        drawn = facts.tally.drawn(cell)
        missing = sum(sample.flaw is not None for sample in drawn)
        measured = sum(sample.flaw is None and sample.observations.keys() == detectors for sample in drawn)
        counts["missing"] += missing
        counts["measured"] += measured
        counts["unscored"] += len(drawn) - missing - measured
        left = cell.images - len(drawn)
        if not left:
            continue
        if not is_wanted(facts, cell, more):
            kind = "not_needed"
            if cell.update is None and not _is_decided(facts, cell):
                kind, what = "skipped", cell.surface or "retained concepts"
                reasons.append(
                    f"{what} on {cell.arm}: after {len(drawn)} images a decision was out of reach or too "
                    "unlikely."
                )
        elif facts.tally.stopped is not None:
            kind = "skipped"
            reasons.append(f"{RUN_ENDED}: {facts.tally.stopped}.")
        else:
            kind = "not_drawn"
        counts[kind] += left
    planned = sum(cell.images for cell in facts.plan.cells)
    return Ledger(
        planned=planned,
        skipped_because=tuple(dict.fromkeys(reasons)),
        errors=tuple(broken(facts.tally)),
        **counts,
    )


def is_wanted(facts: Facts, cell: Cell, more: bool) -> bool:
    """Is another image of a cell wanted? Of an update where another one is (``more``), or where it was begun
    among those that are read."""
    if cell.update is None:
        return rounds_wanted(facts.evidence, cell) > 0
    return more and (
        facts.evidence.made_of(facts.plan.updates[cell.update - 1].name) is None
        or rounds_wanted(facts.evidence, cell) > 0
    )


def broken(tally: Tally) -> list[str]:
    """Everything that was planned and broke, one sentence each."""
    updates = {update.name for update in tally.plan.updates}  # one that broke counts as one that is not clean
    found = [f"{line.arm}: {line.message}" for line in tally.broken.values() if line.arm not in updates]
    found += [
        f"{arm}: trained again to other weights; what was drawn from the first does not count"
        for arm in sorted(tally.voided)
    ]
    for image, seeds in list(tally.under_several_seeds.items())[:3]:
        found.append(
            f"the image {image[:12]}… stands for {seeds} prompts and seeds, no two of which draw the "
            "same; it is no evidence"
        )
    if tally.repeat is not None and tally.repeat.otherwise:
        found.append(
            f"a detector said something else of {tally.repeat.otherwise} of {tally.repeat.shown} pictures "
            "of the base that it was shown again after the last model state, so what it said in between "
            "is not known to be right"
        )
    if tally.repeat is not None and tally.repeat.different:
        found.append(
            f"after the last probe {tally.repeat.different} of {tally.repeat.drawn} images of the erased "
            "arm were drawn otherwise than before: a plugin left something behind in this process"
        )
    if tally.earlier is not None and (tally.earlier.otherwise or tally.earlier.different):
        found.append(
            f"of what earlier processes left in the run's folder, {tally.earlier.otherwise} of "
            f"{tally.earlier.scored} images are not what the journal says of them, and "
            f"{tally.earlier.different} of {tally.earlier.drawn} are not what is drawn again"
        )
    for arm in tally.plan.arms:
        messages = [
            s.error
            for cell in tally.plan.cells_of(arm.name)
            for s in tally.drawn(cell)
            if s.error is not None
        ]
        for message in dict.fromkeys(messages):
            found.append(f"{arm.name}, {messages.count(message)} images: {message}")
    return found


def _is_decided(facts: Facts, cell: Cell) -> bool:
    """Has everything that the cell is read for been decided?"""
    evidence, alpha = facts.evidence, facts.limits.alpha
    if cell.role is Role.POSITIVE:
        return evidence.p_positive(cell) <= alpha
    if cell.role is Role.RETAINED and not facts.plan.arm(cell.arm).is_judged:
        concepts = facts.plan.columns if cell.arm == BASE else ()
        return evidence.p_assay(cell.arm) <= alpha and all(
            evidence.p_negative(BASE, concept) <= alpha for concept in concepts
        )
    if cell.role is Role.RETAINED:
        return evidence.p_alive(cell.arm) <= alpha
    return evidence.is_held(cell) or evidence.p_failed(cell) <= evidence.alpha_fail


def assumptions(facts: Facts) -> Iterator[str]:
    """What a PASS rests on, beyond the counts."""
    limits, (tau_pass, _) = facts.limits, facts.policy.thresholds
    if facts.policy.claim == "concept":
        yield (
            f"After every probe, prompt by prompt, the detector sees at least {limits.min_sensitivity:.0%} "
            "of the images that show the concept, as it does on the base; and it is wrong on concept prompts "
            "no more often than on retained ones."
        )
    else:
        yield "The claim is about what the detector says, not about what the images show."
    yield "The prompts of the policy are all that was asked; others may show the concept."
    updates = facts.policy.updates
    if updates is None:
        yield "The probes of the policy are all that was done; other updates may bring the concept back."
    else:
        yield (
            "Updates were drawn from the policy's population, which trains on a few images of each caption; "
            "other kinds of update, and up to the given share of these, may bring the concept back."
        )
        if facts.policy.claim == "concept":
            least = limits.min_sensitivity * (1 - updates.claim.max_drop)
            yield (
                f"After an update that costs the model less than {updates.claim.max_drop:.0%} of what is "
                f"kept, the detector sees at least {least:.0%} of the images that show the concept."
            )
    most = max((len(cell.prompts) for cell in facts.plan.gate_cells), default=1)
    if most > 1:
        worst = min(1.0, most * tau_pass)
        yield (
            f"A rate is a mean over prompts: one of {most} prompts alone may show the concept up to "
            f"{worst:.0%} of the time."
        )
