"""What a policy demands less, more or otherwise than an earlier one, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from auditor._audit.weaker import looser
from auditor.plugin import _door as door
from auditor.plugin.contracts import AnyProbe, PromptProbe, WeightProbe
from auditor.plugin.instruments import make_probes
from auditor.plugin.planned import planned_probes
from auditor.policy import Concept, Policy, ProbeUse

Kind = Literal["weaker", "stronger", "other"]

_ORDERED: Mapping[str, tuple[Any, ...]] = {
    "claim": ("detector", "concept"),
    "unit": ("mean", "prompt"),
    "synonyms": ("report", "gate"),
}
"""Keys whose values are stronger from the first to the last."""
_OTHERS = ("base", "sampler", "sequential", "on_fail", "on_undecided", "metrics", "nonce")


@dataclass(frozen=True)
class PolicyChange:
    """One thing that a policy demands less (``weaker``), more (``stronger``) or otherwise (``other``)."""

    key: str
    """What it is about (``limits.tau``): the key of a reason."""
    kind: Kind
    sentence: str
    reason: str | None = None
    """Of what is weaker: the reason that the new policy gives for it, and that the old one did not give
    already."""


def policy_diff(old: Policy, new: Policy) -> list[PolicyChange]:
    """Every change from ``old`` to ``new``, what is weaker first. Raises :class:`PolicyError` where a probe
    is not installed."""
    found = [
        PolicyChange(key, kind, sentence, _reason(old, new, key) if kind == "weaker" else None)
        for key, kind, sentence in (
            *_limits(old, new),
            *_decision(old, new),
            *_ordered(old, new),
            *_budget(old, new),
            *_concepts(old, new),
            *_probes(old, new),
            *_detectors(old, new),
            *_others(old, new),
        )
    ]
    return sorted(found, key=lambda change: ("weaker", "stronger", "other").index(change.kind))


_Changes = Iterator[tuple[str, Kind, str]]
"""(key, kind, sentence)."""


def _reason(old: Policy, new: Policy, key: str) -> str | None:
    """What was said of an earlier change is no reason for this one."""
    reason = new.reason_for(key)
    return None if reason is not None and reason == old.reason_for(key) else reason


def _limits(old: Policy, new: Policy) -> _Changes:
    for name in type(new.limits).model_fields:
        before, after = getattr(old.limits, name), getattr(new.limits, name)
        if before == after:
            continue
        key = f"limits.{name}"
        if name == "prior":
            yield key, "other", f"{key}: {list(before)} → {list(after)}"
            continue
        yield key, "weaker" if looser(name, before, after) else "stronger", f"{key}: {before:g} → {after:g}"


def _decision(old: Policy, new: Policy) -> _Changes:
    before, after = old.gate.decision, new.gate.decision
    if before == after:
        return
    kind: Kind = "other"
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
            yield f"{key}.{name}", "stronger", f"'{name}' must be {verb} too"
        for name in (name for name in before if name in after):
            yield from _concept(f"{key}.{name}", before[name], after[name])


def _concept(key: str, before: Concept, after: Concept) -> _Changes:
    for what, old, new in (
        ("prompt", before.templates, after.templates),
        ("synonym", before.synonyms, after.synonyms),
    ):
        yield from _members(key, f"{before.name}: {what}", old, new)
    for field in ("domain", "mapping", "evaluation_seeds"):
        if getattr(before, field) != getattr(after, field):
            yield key, "other", f"{before.name}: another {field}"


def _members(key: str, what: str, old: Sequence[Any], new: Sequence[Any]) -> _Changes:
    """What is left out of a list is weaker, what is added is stronger."""
    gone, more = [each for each in old if each not in new], [each for each in new if each not in old]
    if gone:
        yield key, "weaker", f"{what} left out: {', '.join(map(str, gone))}"
    if more:
        yield key, "stronger", f"{what} added: {', '.join(map(str, more))}"


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
        yield from _members(key, f"{name}: prompts", asked, asks)
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
            yield key, "other", f"{name}: another {option} ({_short(one)} → {_short(other)})"


def _numbers(key: str, what: str, before: float, after: float) -> _Changes:
    if before != after:
        yield key, "weaker" if after < before else "stronger", f"{what}: {before:g} → {after:g}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _detectors(old: Policy, new: Policy) -> _Changes:
    before, after = ({use.use: use.options for use in policy.detectors} for policy in (old, new))
    if old.gate_detector != new.gate_detector:
        yield (
            "gate",
            "other",
            f"another detector decides: {old.gate_detector} → {new.gate_detector}; its errors are its own, "
            "so rates cannot be compared",
        )
    for name in (name for name in before if name not in after):
        yield "detectors", "other", f"the detector {name} is gone"
    for name in (name for name in after if name not in before):
        yield "detectors", "other", f"the detector {name} is new"
    for name in (name for name in before if name in after):
        if before[name] != after[name]:
            which = "decides" if name == new.gate_detector else "looks"
            yield "detectors", "other", f"{name}, which {which}, has other options"


def _others(old: Policy, new: Policy) -> _Changes:
    before, after = (policy.model_dump(mode="json", include=set(_OTHERS)) for policy in (old, new))
    for key in _OTHERS:
        one, other = before.get(key, "spend"), after.get(key, "spend")
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            for name in sorted(one.keys() | other.keys()):
                if one.get(name) != other.get(name):
                    yield key, "other", f"{key}.{name}: {_short(one.get(name))} → {_short(other.get(name))}"
        else:
            yield key, "other", f"{key}: {_short(one)} → {_short(other)}"
