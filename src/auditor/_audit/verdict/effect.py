"""The control "took effect": did a probe do to the model, to sampling or to prompts what it is there for?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from auditor._audit.cells import ERASED, Arm, Role
from auditor._audit.plan import Plan
from auditor._audit.verdict.facts import Facts
from auditor._journal.lines import ArmLine
from auditor._stats.falls import fall_of
from auditor.policy import as_read
from auditor.report import Control


def other_ways(plan: Plan) -> Iterator[str]:
    """In what each model state of the erased weights is drawn or asked otherwise than the erased model."""
    usual = plan.policy.sampler.model_dump()
    for probe in plan.probes:
        if probe.sampler is not None:
            own = probe.sampler.model_dump()
            changed = [f"{key} {own[key]} instead of {usual[key]}" for key in usual if own[key] != usual[key]]
            yield f"{probe.name}: drawn with {', '.join(changed)}"
        elif probe.kind == "prompts":
            asked = ", ".join(f"{name} in {len(prompts)} prompts" for name, prompts in probe.prompts.items())
            yield f"{probe.name}: asked for {asked} of its own"


def took_effect(facts: Facts, arm: Arm) -> Control:
    """The control of one probe's arm: is it another model state than the erased one at all?"""
    assert arm.probe is not None
    probe = facts.plan.probes[arm.probe]
    if probe.kind == "sampling":
        return _sampled_otherwise(facts, arm, probe.least_different)
    return _asked_otherwise(facts, arm) if probe.kind == "prompts" else _learnt(facts, arm)


def _sampled_otherwise(facts: Facts, arm: Arm, least: float) -> Control:
    """A probe of sampling took where enough of its images are not those of the policy's own sampler."""
    pairs, same = _same_as_erased(facts, arm)
    share = (pairs - same) / pairs if pairs else None
    return Control(
        name="potent",
        arm=arm.name,
        passed=share is not None and share >= least,
        value=share,
        limit=least,
        p=None,
        n=pairs,
        sentence=f"{pairs - same} of {pairs} images differ from the erased model's of the same prompts and "
        f"seeds (at least {least:.0%} needed).",
    )


def _asked_otherwise(facts: Facts, arm: Arm) -> Control:
    """A probe of prompts took where it asks nothing that the policy asks anyway."""
    own = {as_read(prompt) for cell in facts.plan.cells_of(ERASED) for prompt in cell.prompts}
    asked = [p for cell in facts.plan.cells_of(arm.name) if cell.role is Role.GATE for p in cell.prompts]
    new = sum(as_read(prompt) not in own for prompt in asked)
    return Control(
        name="potent",
        arm=arm.name,
        passed=0 < new == len(asked),
        value=new / len(asked) if asked else None,
        limit=1.0,
        p=None,
        n=len(asked),
        sentence=f"{new} of {len(asked)} prompts are none of the policy's own (all must be).",
    )


def _learnt(facts: Facts, arm: Arm) -> Control:
    """Did the update do more than nothing? The fall of the denoising loss on the pictures that it was trained
    on, with noise that training never used. What it learnt of other pictures is told beside it."""
    line, limit = facts.tally.arms.get(arm.name), facts.limits.min_fit
    potent = partial(Control, name="potent", arm=arm.name, limit=limit, p=None)
    if line is not None and line.idle:
        parts = " and ".join(line.put_back)
        sentence = f"The checkpoint has the base's {parts} already: there was nothing to put back."
        return potent(passed=None, value=None, n=0, sentence=sentence)
    pairs, same = _same_as_erased(facts, arm)
    if pairs and same == pairs:
        sentence = (
            f"All {pairs} images are the erased model's, bit for bit: the update did not reach the audited "
            "prompts."
        )
        return potent(passed=False, value=None, n=pairs, sentence=sentence)
    if line is not None and line.least_change is not None:
        return _applied(arm, line.change or 0.0, line.least_change)
    fell = None if line is None else fall_of(line.fit_trained_before, line.fit_trained, facts.limits.alpha)
    if line is None or fell is None:
        sentence = (
            "The probe's effect was not measured: no loss was recorded on two pictures that it was trained "
            "on and that differ from each other."
        )
        return potent(passed=False, value=None, n=0, sentence=sentence)
    pictures = len(line.fit_trained)
    sentence = (
        f"With noise that training never used, the loss on {pictures} of the probe's training pictures "
        f"{fell.said} (bound {fell.lower:.1%}; a fall of {limit:.1%} needed); "
        f"{_held_out(line, facts.limits.alpha)}."
    )
    passed = fell.reaches(limit)
    return potent(passed=passed, value=fell.mean, n=pictures, sentence=sentence)


def _held_out(line: ArmLine, alpha: float) -> str:
    """What the loss on held-out pictures did, beside what decides."""
    fell = fall_of(line.fit_before, line.fit, alpha)
    if fell is None:
        return "on held-out captions it was not measured"
    return f"on {len(line.fit)} held-out captions it {fell.said} (bound {fell.lower:.1%})"


def _same_as_erased(facts: Facts, arm: Arm) -> tuple[int, int]:
    """(images of erased concepts that both arms drew from one prompt and seed, how many of them are
    the same bit for bit)."""
    pairs = same = 0
    for cell in facts.plan.cells_of(arm.name):
        twin = facts.plan.cell(ERASED, cell.role, cell.surface) if cell.role is Role.GATE else None
        if twin is None:
            continue
        before = {(s.prompt, s.index): s.image for s in facts.tally.drawn(twin) if s.image is not None}
        both = [
            (before[s.prompt, s.index], s.image)
            for s in facts.tally.drawn(cell)
            if s.image and (s.prompt, s.index) in before
        ]
        pairs, same = pairs + len(both), same + sum(one == other for one, other in both)
    return pairs, same


def _applied(arm: Arm, change: float, least: float) -> Control:
    """An update that trains on nothing took if the weights moved as far as it says that they do."""
    return Control(
        name="potent",
        arm=arm.name,
        passed=change >= least,
        value=change,
        limit=least,
        p=None,
        n=1,
        sentence=f"The update moved the weights by {change:.2g} of their L2 norm ({least:.2g} needed).",
    )
