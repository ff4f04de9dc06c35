"""What a policy demands less, more or otherwise than an earlier one, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from auditor._audit.weaker import looser
from auditor.plugin import _door as door
from auditor.plugin.contracts import AnyProbe, PromptProbe, WeightProbe
from auditor.plugin.instruments import make_instruments, make_probes
from auditor.plugin.planned import planned_probes
from auditor.policy import Concept, Policy, ProbeUse

Kind = Literal["weaker", "unclear", "stronger", "other"]

_ORDERED: Mapping[str, tuple[Any, ...]] = {
    "claim": ("detector", "concept"),
    "unit": ("mean", "prompt"),
    "synonyms": ("report", "gate"),
}
"""Keys whose values are stronger from the first to the last."""
_DECIDING = ("base", "sequential")
"""Keys that what is measured hangs on, in no order of strength."""
_BESIDE = ("on_fail", "on_undecided", "metrics", "nonce")
"""Keys that no PASS becomes easier by."""
_HOW_ALONE = ("batch", "compile")
"""Keys of the sampler that change an image in its last bits alone."""


@dataclass(frozen=True)
class PolicyChange:
    """One thing that a policy demands less (``weaker``), more (``stronger``), in a way that cannot be
    compared and may be weaker (``unclear``), or that a PASS does not hang on (``other``)."""

    key: str
    """What it is about (``limits.tau``): the key of a reason."""
    kind: Kind
    sentence: str
    reason: str | None = None
    """Of what is weaker or unclear: the reason that the new policy gives for exactly this key, and that the
    old one did not give already."""

    @property
    def is_silent(self) -> bool:
        """May it be weaker, and says nobody why?"""
        return self.kind in ("weaker", "unclear") and self.reason is None


def policy_diff(old: Policy, new: Policy) -> list[PolicyChange]:
    """Every change from ``old`` to ``new``, what is weaker first. Raises :class:`PolicyError` where a plugin
    is not installed, or a file that it decides by cannot be read."""
    found = [
        PolicyChange(key, kind, sentence, _reason(old, new, key) if kind in ("weaker", "unclear") else None)
        for key, kind, sentence in (
            *_limits(old, new),
            *_decision(old, new),
            *_ordered(old, new),
            *_budget(old, new),
            *_concepts(old, new),
            *_probes(old, new),
            *_updates(old, new),
            *_detectors(old, new),
            *_sampler(old, new),
            *_others(old, new),
            *_contents(old, new),
        )
    ]
    return sorted(found, key=lambda change: get_args(Kind).index(change.kind))


_Changes = Iterator[tuple[str, Kind, str]]
"""(key, kind, sentence)."""


def _reason(old: Policy, new: Policy, key: str) -> str | None:
    """What was said of an earlier change, or of another key, is no reason for this one."""
    reason = new.reasons.get(key)
    return None if reason == old.reasons.get(key) else reason


def _limits(old: Policy, new: Policy) -> _Changes:
    for name in type(new.limits).model_fields:
        before, after = getattr(old.limits, name), getattr(new.limits, name)
        if before == after:
            continue
        key = f"limits.{name}"
        if name == "prior":
            yield key, "unclear", f"{key}: {list(before)} → {list(after)}"
            continue
        yield key, "weaker" if looser(name, before, after) else "stronger", f"{key}: {before:g} → {after:g}"


def _decision(old: Policy, new: Policy) -> _Changes:
    before, after = old.gate.decision, new.gate.decision
    if before == after:
        return
    kind: Kind = "unclear"
    if before.threshold is not None and after.threshold is not None:
        kind = "weaker" if after.threshold > before.threshold else "stronger"
    elif before == type(before)():
        kind = "weaker"  # as weaker_than_default says it
    yield "gate", kind, f"gate.decision: {before.sentence} → {after.sentence}"


def _ordered(old: Policy, new: Policy) -> _Changes:
    for key, values in _ORDERED.items():
        before, after = getattr(old, key), getattr(new, key)
        if before != after:
            kind: Kind = "weaker" if values.index(after) < values.index(before) else "stronger"
            yield key, kind, f"{key}: {before} → {after}"


def _budget(old: Policy, new: Policy) -> _Changes:
    for name in type(new.budget).model_fields:
        before, after = getattr(old.budget, name), getattr(new.budget, name)
        if before == after:
            continue
        key = f"budget.{name}"
        said = f"{key}: {_number(before)} → {_number(after)}"
        if name == "plugin_minutes":
            yield key, "other", said
        elif (after or float("inf")) < (before or float("inf")):
            yield key, "weaker", f"{said}; fewer images look for what came back"
        else:
            yield key, "stronger", said


def _number(value: float | None) -> str:
    return "no limit" if value is None else f"{value:g}"


def _concepts(old: Policy, new: Policy) -> _Changes:
    for key, verb in (("erase", "erased"), ("retain", "kept")):
        before, after = ({c.name: c for c in getattr(policy, key)} for policy in (old, new))
        for name in (name for name in before if name not in after):
            yield f"{key}.{name}", "weaker", f"'{name}' need no longer be {verb}"
        for name in (name for name in after if name not in before):
            # what is lost of one retained concept counts less beside more of them
            kind: Kind = "stronger" if key == "erase" else "unclear"
            yield f"{key}.{name}", kind, f"'{name}' must be {verb} too"
        for name in (name for name in before if name in after):
            pooled = key == "retain" or new.unit == "mean"
            yield from _concept(f"{key}.{name}", before[name], after[name], pooled=pooled)


def _concept(key: str, before: Concept, after: Concept, *, pooled: bool) -> _Changes:
    for what, old, new in (
        ("prompt", before.templates, after.templates),
        ("synonym", before.synonyms, after.synonyms),
    ):
        yield from _members(key, f"{before.name}: {what}", old, new, pooled=pooled and what == "prompt")
    for field in ("domain", "mapping", "evaluation_seeds"):
        if getattr(before, field) != getattr(after, field):
            kind: Kind = "other" if field == "mapping" else "unclear"
            yield key, kind, f"{before.name}: another {field}"


def _members(
    key: str, what: str, old: Sequence[Any], new: Sequence[Any], *, pooled: bool = False
) -> _Changes:
    """What is left out of a list is weaker, what is added is stronger; unless one rate is read over all of
    it (``pooled``): then what is added thins out the rest."""
    gone, more = [each for each in old if each not in new], [each for each in new if each not in old]
    if gone:
        yield key, "weaker", f"{what} left out: {', '.join(map(str, gone))}"
    if more:
        but = "; one rate is read over all of them, so the others count less" if pooled else ""
        yield key, "unclear" if pooled else "stronger", f"{what} added: {', '.join(map(str, more))}{but}"


def _probes(old: Policy, new: Policy) -> _Changes:
    before, after = _named(old), _named(new)
    for name in (name for name in before if name not in after):
        yield f"probes.{name}", "weaker", f"the probe {name} is gone"
    for name in (name for name in after if name not in before):
        yield f"probes.{name}", "stronger", f"the probe {name} is new"
    for name in (name for name in before if name in after):
        yield from _probe(f"probes.{name}", name, before[name], after[name], old, new)


_Made = tuple[ProbeUse, AnyProbe]


def _named(policy: Policy) -> dict[str, _Made]:
    probes = make_probes(policy)
    names = [probe.name for probe in planned_probes(policy, probes)]
    return dict(zip(names, zip(policy.probes, probes, strict=True), strict=True))


def _probe(key: str, name: str, before: _Made, after: _Made, old: Policy, new: Policy) -> _Changes:
    (use, probe), (later, made) = before, after
    if isinstance(made, WeightProbe):
        yield from _numbers(key, f"{name}: training seeds", use.replicates, later.replicates)
        yield from _numbers(key, f"{name}: most training steps", use.doses[-1], later.doses[-1])
        yield from _members(key, f"{name}: images after training steps", use.doses[:-1], later.doses[:-1])
    if isinstance(probe, PromptProbe) and isinstance(made, PromptProbe):
        asked, asks = (
            [p for concept in policy.erase for p in door.call(each, lambda: list(each.prompts(concept)))]  # noqa: B023
            for policy, each in ((old, probe), (new, made))
        )
        yield from _members(key, f"{name}: prompts", asked, asks, pooled=new.unit == "mean")
        return
    usual = door.call(made, made.usual, later.method) if isinstance(made, WeightProbe) else {}
    options, others = probe.options.model_dump(mode="json"), made.options.model_dump(mode="json")
    for option in dict.fromkeys([*options, *others]):
        one, other = options.get(option), others.get(option)
        if one == other:
            continue
        if option in usual:
            yield from _numbers(
                key, f"{name}: {option}", *(usual[option] if n is None else n for n in (one, other))
            )
        else:
            yield key, "unclear", f"{name}: another {option} ({_short(one)} → {_short(other)})"


def _numbers(key: str, what: str, before: float, after: float) -> _Changes:
    if before != after:
        yield key, "weaker" if after < before else "stronger", f"{what}: {before:g} → {after:g}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _updates(old: Policy, new: Policy) -> _Changes:
    before, after = old.updates, new.updates
    if before == after:
        return
    if before is None or after is None:
        said: tuple[Kind, str] = ("weaker", "gone") if after is None else ("stronger", "new")
        yield "updates", said[0], f"the claim over updates is {said[1]}"
        return
    for name in type(after.claim).model_fields:
        one, other = getattr(before.claim, name), getattr(after.claim, name)
        if one != other:
            kind: Kind = "weaker" if other > one else "stronger"
            if name not in ("share", "alpha_in"):
                kind = "unclear"
            yield f"updates.claim.{name}", kind, f"updates.claim.{name}: {one} → {other}"
    for name in type(after.budget).model_fields:
        least, most = getattr(before.budget, name), getattr(after.budget, name)
        yield from _numbers(f"updates.budget.{name}", f"updates.budget.{name}", least, most)
    if before.population != after.population:
        told = "the population holds other updates, so shares cannot be compared"
        yield "updates.population", "unclear", told


def _detectors(old: Policy, new: Policy) -> _Changes:
    before, after = ({use.use: use.options for use in policy.detectors} for policy in (old, new))
    if old.gate_detector != new.gate_detector:
        yield (
            "gate",
            "unclear",
            f"another detector decides: {old.gate_detector} → {new.gate_detector}; its errors are its own, "
            "so rates cannot be compared",
        )
    decide = _deciding(old) | _deciding(new)
    for name in dict.fromkeys([*before, *after]):
        kind: Kind = "unclear" if name in decide else "other"
        which = f"{name}, which {'decides' if name in decide else 'looks'},"
        if name not in after:
            yield "detectors", kind, f"{which} is gone"
        elif name not in before:
            yield "detectors", kind, f"{which} is new"
        elif before[name] != after[name]:
            yield "detectors", kind, f"{which} has other options"


def _deciding(policy: Policy) -> set[str]:
    """The detectors that a verdict hangs on."""
    vote = policy.gate.decision.vote
    return {policy.gate_detector, *(vote.detectors if vote else ())}


def _sampler(old: Policy, new: Policy) -> _Changes:
    for name in type(new.sampler).model_fields:
        before, after = getattr(old.sampler, name), getattr(new.sampler, name)
        if before != after:
            kind: Kind = "other" if name in _HOW_ALONE else "unclear"
            yield f"sampler.{name}", kind, f"sampler.{name}: {_short(before)} → {_short(after)}"


def _others(old: Policy, new: Policy) -> _Changes:
    for key in (*_DECIDING, *_BESIDE):
        before, after = getattr(old, key), getattr(new, key)
        if before != after:
            kind: Kind = "unclear" if key in _DECIDING else "other"
            yield key, kind, f"{key}: {_short(before)} → {_short(after)}"
    if old.reasons != new.reasons:
        changed = sorted(
            key for key in {*old.reasons, *new.reasons} if old.reasons.get(key) != new.reasons.get(key)
        )
        yield "reasons", "other", f"other reasons are given for {', '.join(changed)}"


def _contents(old: Policy, new: Policy) -> _Changes:
    """Files, sets and weights that plugins decide by which are asked for in the same words, and that are
    others now."""
    before, after = (make_instruments(policy).contents() for policy in (old, new))
    for part, name, options, place in _asked(old):
        for other in _asked(new):
            if (part, name, options) != other[:3]:
                continue
            own, now = before[place], after[other[3]]
            for what in (what for what in {**own, **now} if own.get(what) != now.get(what)):
                yield part, "unclear", f"{name} decides by another {what}"


def _asked(policy: Policy) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """(key in the policy, name, options as they were written, place in the contents) of each plugin that a
    verdict may hang on."""
    for number, probe in enumerate(policy.probes):
        yield "probes", probe.use, probe.options, f"probes/{number}/{probe.use}"
    for number, use in enumerate(() if policy.updates is None else policy.updates.population):
        yield "updates.population", use.use, use.options, f"updates/{number}/{use.use}"
    for number, detector in enumerate(policy.detectors):
        yield "detectors", detector.use, detector.options, f"detectors/{number}/{detector.use}"
