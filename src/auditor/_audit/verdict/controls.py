"""The controls that a verdict rests on: does the detector work, does the model draw, did the probes take?"""

from __future__ import annotations

from collections.abc import Iterator

from auditor._audit.cells import BASE, Arm, Role
from auditor._audit.evidence.sequential_tests import Reading
from auditor._audit.evidence.share import base_reading, population
from auditor._audit.population import UPDATES
from auditor._audit.verdict import integrity
from auditor._audit.verdict.effect import took_effect
from auditor._audit.verdict.facts import NOTHING, Facts
from auditor.report import Control
from auditor.report.words import NOT_DRAWN, certainty, percent

_OF_IMAGES = ("negative", "positive", "assay", "alive", "potent", "sham")


def controls(facts: Facts) -> tuple[Control, ...]:
    """Every control, in the order a reader asks: does the detector work, does the model draw, did the probe
    take effect?"""
    return tuple(_said(facts, control) for control in _controls(facts))


def _said(facts: Facts, control: Control) -> Control:
    """The control; one that rests on images or a training that the run did not come to says so."""
    begun = control.n or control.name not in _OF_IMAGES or control.passed is not False
    cell = facts.plan.retained_of(control.arm) if control.name == "negative" else None
    drawn = cell is not None and facts.evidence.rounds(cell) > 0  # of the concept itself alone
    trained = control.name == "potent" and control.arm in facts.tally.arms
    if begun or drawn or trained or (control.name == "positive" and not facts.plan.has_base):
        return control
    sentence = f"{NOT_DRAWN.capitalize()}: there is nothing yet to show it by."
    if control.name in ("negative", "assay", "alive") and not facts.policy.retain:
        sentence = "No concept is to be kept, so nothing can show it."
    elif control.name in ("assay", "alive") and not facts.plan.has_base:
        sentence = "There is no base to compare with."
    return control.model_copy(update={"sentence": sentence})


def _controls(facts: Facts) -> Iterator[Control]:
    yield from integrity.of_the_text(facts)
    if facts.plan.has_base:
        yield from (_negative(facts, BASE, concept, facts.limits.alpha) for concept in facts.plan.columns)
    asked = dict.fromkeys(
        (facts.plan.arm(c.arm).partner, c.surface, c.concept) for c in facts.plan.gate_cells
    )
    yield from (_positive(facts, *each) for each in asked)
    own = [arm for arm in facts.judged if arm.retained_by is None]
    yield from (_assay(facts, partner) for partner in dict.fromkeys(arm.partner for arm in own))
    yield from _assay_of_updates(facts)
    yield from (_alive(facts, arm) for arm in own)
    yield from (took_effect(facts, arm) for arm in facts.judged if facts.plan.is_last_dose(arm))
    yield from (_sham(facts, name) for name in _no_ops(facts))
    yield from integrity.repeat(facts)
    yield from integrity.earlier(facts)
    for arm in facts.judged:
        suspects = [c for c in facts.plan.cells_of(arm.name) if c.role is Role.GATE]
        seen = dict.fromkeys(c.concept for c in suspects if facts.evidence.p_failed(c) <= facts.limits.alpha)
        yield from (
            _negative(facts, arm.name, concept, facts.evidence.alpha_fail, decides="FAIL") for concept in seen
        )


def _no_ops(facts: Facts) -> list[str]:
    """The no-op controls that a PASS rests on: of each probe, and of each kind of update that was made."""
    named = [name for *_, name in facts.plan.named_training]
    made = [
        facts.plan.no_op_name(number)
        for number, _, name in facts.plan.training[len(named) :]
        if name in facts.tally.arms
    ]
    return list(dict.fromkeys((*named, *made)))


def _rate(
    facts: Facts, name: str, arm: str, reading: Reading, hits: int, p: float, **more: object
) -> Control:
    n = reading.images
    values: dict[str, object] = {"passed": p <= facts.limits.alpha} | more
    return Control.model_validate(
        {"name": name, "arm": arm, "value": hits / n if n else None, "p": p, "n": n} | values
    )


def _bounds(facts: Facts, reading: Reading, level: float) -> tuple[float, float] | None:
    """Bounds of a rate at ``level``, by the test that decides; None where nothing can be read yet."""
    if not reading.images or not (facts.evidence.sequential or reading.whole):
        return None
    return facts.evidence.bounds(reading, level)


def _held_against(side: str, bound: float | None, alpha: float, limit: float, needs: str) -> str:
    """The second half of a control's sentence: the bound that decides, and the limit."""
    told = "" if bound is None else f", with {certainty(alpha)} certainty {side} {percent(bound, 1)}"
    return f"{told} ({needs} {percent(limit)})."


def _negative(facts: Facts, arm: str, concept: str, level: float, decides: str = "PASS") -> Control:
    cell, limit = facts.plan.retained_of(arm), facts.limits.max_false_positive
    reading = NOTHING if cell is None else facts.evidence.read_others(cell, concept)
    hits, p = reading.hits[1], facts.evidence.p_negative(arm, concept)
    both = _bounds(facts, reading, level)
    upper = None if both is None else both[1]
    sentence = f"The detector saw {concept} in {hits} of {reading.images} images of other, retained concepts"
    more = {
        "concept": concept,
        "decides": decides,
        "passed": p <= level,
        "limit": limit,
        "bound": upper,
        "sentence": sentence + _held_against("at most", upper, level, limit, "limit"),
    }
    return _rate(facts, "negative", arm, reading, hits, p, **more)


def _positive(facts: Facts, arm: str, surface: str, concept: str) -> Control:
    cell, limit = facts.plan.cell(arm, Role.POSITIVE, surface), facts.limits.min_sensitivity
    reading = NOTHING if cell is None else facts.evidence.read(cell)
    p, hits = 1.0 if cell is None else facts.evidence.p_positive(cell), reading.hits[0]
    lower = _lower(facts, reading)
    sentence = f"The detector saw {surface} in {hits} of {reading.images} images of the base{_drawn_as(arm)}"
    sentence += _held_against("at least", lower, facts.limits.alpha, limit, "needed:")
    if cell is None:
        sentence = "Without a base it is not known whether the detector sees the concept at all."
    more = {"concept": concept, "limit": limit, "bound": lower, "sentence": sentence}
    return _rate(facts, "positive", arm, reading, hits, p, **more)


def _lower(facts: Facts, reading: Reading) -> float | None:
    both = _bounds(facts, reading, facts.limits.alpha)
    return None if both is None else both[0]


def _drawn_as(arm: str) -> str:
    return "" if arm == BASE else f", drawn and asked as in {arm.removeprefix(f'{BASE}.')}"


def _assay(facts: Facts, arm: str) -> Control:
    cell, limit = facts.plan.cell(arm, Role.RETAINED), facts.limits.min_retain
    reading = NOTHING if cell is None else facts.evidence.read(cell)
    hits, lower = reading.hits[0], _lower(facts, reading)
    sentence = (
        f"The base{_drawn_as(arm)} shows {hits} of {reading.images} retained images as what they should be"
        f"{_held_against('at least', lower, facts.limits.alpha, limit, 'needed:')}"
    )
    more = {"limit": limit, "bound": lower, "sentence": sentence}
    return _rate(facts, "assay", arm, reading, hits, facts.evidence.p_assay(arm), **more)


def _assay_of_updates(facts: Facts) -> Iterator[Control]:
    """The same of the base's images that updates of a population are held against: they have noise of their
    own."""
    found = population(facts.evidence)
    if found is None:
        return
    limit, reading = facts.limits.min_retain, base_reading(facts.evidence, found)
    hits, lower = reading.hits[0], _lower(facts, reading)
    needs = _held_against("at least", lower, facts.limits.alpha, limit, "needed:")
    sentence = (
        f"Beside the updates the base shows {hits} of {reading.images} retained images as what they should "
        f"be{needs}"
    )
    more = {"limit": limit, "bound": lower, "sentence": sentence}
    p = facts.evidence.p_above(reading, limit)
    yield _rate(facts, "assay", f"{BASE}.{UPDATES}", reading, hits, p, **more)


def _alive(facts: Facts, arm: Arm) -> Control:
    pairs, limit = facts.evidence.retained_pairs(arm.name), facts.limits.max_retain_drop
    gained, lost, same = (0, 0, 0) if pairs is None else pairs.last
    n, p = gained + lost + same, facts.evidence.p_alive(arm.name)
    bound = None if pairs is None else facts.evidence.drop_bound(pairs)
    return Control(
        name="alive",
        arm=arm.name,
        passed=p <= facts.limits.alpha,
        value=(lost - gained) / n if n else None,
        limit=limit,
        p=p,
        n=n,
        bound=bound,
        sentence=f"Of {n} retained images, {lost} were lost and {gained} gained against the base: a loss of "
        f"{percent((lost - gained) / n if n else None)}"
        f"{_held_against('at most', bound, facts.limits.alpha, limit, 'limit')}",
    )


def _sham(facts: Facts, name: str) -> Control:
    line = facts.tally.shams.get(name)
    if line is not None and not line.applicable:
        sentence = "This probe does not train, or not at a learning rate: not applicable."
        return Control(
            name="sham", arm=name, passed=None, value=None, limit=0.0, p=None, n=0, sentence=sentence
        )
    images, different = (0, 0) if line is None else (line.images, line.different)
    return Control(
        name="sham",
        arm=name,
        passed=images > 0 and different == 0,
        value=different / images if images else None,
        limit=0.0,
        p=None,
        n=images,
        sentence=f"Trained at learning rate 0, {different} of {images} images differ from the erased model's "
        "(none may).",
    )
