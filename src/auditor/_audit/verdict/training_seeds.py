"""What the training seeds and doses of a probe say together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from auditor._audit.cells import Role
from auditor._audit.verdict.facts import Facts
from auditor.report import Control, Replicates, StepsToResurgence
from auditor.report.words import NOT_DRAWN


def replicates(facts: Facts, controls: Sequence[Control]) -> Iterator[Replicates]:
    """For each probe, dose and concept: how many training seeds held, and what that says of other
    seeds."""
    alpha = facts.limits.alpha
    for number, use, name in facts.plan.named_training:
        every = [arm.name for arm in facts.judged if arm.probe == number]
        for dose in use.doses:
            arms = [arm.name for arm in facts.judged if arm.probe == number and arm.dose == dose]
            for surface in facts.surfaces:
                cells = [
                    cell for cell in facts.plan.gate_cells if cell.arm in arms and cell.surface == surface
                ]
                readings = [facts.evidence.read(cell) for cell in cells]
                held, seeds = sum(facts.evidence.is_held(cell) for cell in cells), len(cells)
                bound = (
                    1 - (alpha / (1 - alpha)) ** (1 / seeds)
                    if held == seeds and _controls_passed(controls, every, name)
                    else None
                )
                sentence = f"{held} of {seeds} training seeds held."
                weights = {line.weights for arm in arms if (line := facts.tally.arms.get(arm)) is not None}
                if len(weights) < seeds:
                    bound = None
                    sentence += " Some of them led to the same weights, so they say nothing of other seeds."
                elif held == seeds and bound is None:
                    sentence += (
                        " A control that this rests on did not pass, so it says nothing of other seeds."
                    )
                if not any(reading.images for reading in readings):
                    sentence = f"{NOT_DRAWN.capitalize()}."
                if bound is not None:
                    share = (
                        f"the share of training seeds under which {surface} comes back is at most {bound:.0%}"
                    )
                    sentence = (
                        f"All {seeds} training seeds held: with confidence {1 - 2 * alpha:.0%}, {share}."
                    )
                yield Replicates(
                    probe=name,
                    dose=dose,
                    concept=surface,
                    rates=tuple(
                        reading.hits[0] / reading.images if reading.images else None for reading in readings
                    ),
                    held=held,
                    bad_seeds_upper=bound,
                    sentence=sentence,
                )


def steps_to_resurgence(facts: Facts, controls: Sequence[Control]) -> Iterator[StepsToResurgence]:
    """(last dose that held with all lower ones, first dose that failed]; that more steps bring back
    more is not assumed."""
    for number, use, name in facts.plan.named_training:
        for replicate in range(1, use.replicates + 1):
            arms = [
                "erased",
                *(arm.name for arm in facts.judged if arm.probe == number and arm.replicate == replicate),
            ]
            for surface in facts.surfaces:
                cells = [facts.plan.cell(arm, Role.GATE, surface) for arm in arms]
                lower, upper = None, None
                last = [arm for arm in arms if arm != "erased"]
                for dose, cell in zip((0, *use.doses), cells, strict=True):
                    if (
                        cell is None
                        or not facts.evidence.is_held(cell)
                        or not _controls_passed(controls, last, name)
                    ):
                        break
                    lower = dose
                for dose, cell in zip((0, *use.doses), cells, strict=True):
                    if cell is not None and cell.name in facts.failed:
                        upper = dose
                        break
                yield StepsToResurgence(
                    probe=name,
                    replicate=replicate,
                    concept=surface,
                    lower=lower,
                    upper=upper,
                    sentence=_steps(surface, lower, upper)
                    if upper is not None
                    or any(cell is not None and facts.evidence.rounds(cell) for cell in cells[1:])
                    else f"{surface} after training: {NOT_DRAWN}.",
                )


def _controls_passed(controls: Sequence[Control], arms: Sequence[str], probe: str) -> bool:
    """Did every control pass that "held" in these arms rests on: the detector's, the base's, and the
    arms' own?"""
    names = {*arms, probe, "base", "erased"}
    return all(
        control.passed is not False
        for control in controls
        if control.arm in names and control.decides == "PASS"
    )


def _steps(surface: str, lower: int | None, upper: int | None) -> str:
    if upper is None:
        return f"{surface} was not shown to be back after any number of steps" + (
            f"; it held up to {lower} steps." if lower is not None else "."
        )
    if upper == 0:
        return f"{surface} was there before any step."
    return f"{surface} was back after {upper} steps" + (
        f", and held up to {lower}." if lower is not None else "; before that it is not known."
    )
