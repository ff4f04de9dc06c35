"""Says where a policy asks for less than it would if nobody had changed anything: what makes a PASS easier
is never silent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median_low

from auditor.errors import PluginError
from auditor.plugin import _door as door
from auditor.plugin.contracts import AnyProbe, PromptProbe, WeightProbe
from auditor.policy import Limits, Policy, ProbeUse, UpdateClaim
from auditor.policy.concepts.sets import domain_prompts
from auditor.policy.decision import Decision

_LOOSER_ABOVE = ("tau", "alpha", "max_false_positive", "max_retain_drop")
_LOOSER_BELOW = ("min_sensitivity", "min_retain", "min_fit")


def weaker_than_default(
    policy: Policy, probes: Sequence[AnyProbe], members: Sequence[AnyProbe] = ()
) -> tuple[str, ...]:
    """Every limit, dose, rate and list of prompts that is looser than its default, one sentence each with
    the policy's reason where it gives one; empty where none is. ``members``: of the population."""
    found = [
        *_limits(policy),
        *_sampler(policy),
        *_gate(policy),
        *_updates(policy),
        *_members(policy, members),
        *_untrained([*probes, *members]),
        *(s for use, probe in zip(policy.probes, probes, strict=True) for s in _probe(policy, use, probe)),
        *_prompts(policy),
    ]
    reasons = ((sentence, policy.reason_for(key)) for key, sentence in found)
    return tuple(s if reason is None else f"{s} (reason given: {reason})" for s, reason in reasons)


def looser(limit: str, before: float, after: float) -> bool | None:
    """Is a limit looser at ``after`` than at ``before``? None where neither is the looser one."""
    if before == after or limit not in (*_LOOSER_ABOVE, *_LOOSER_BELOW):
        return None
    return (after > before) == (limit in _LOOSER_ABOVE)


_Weaker = Iterator[tuple[str, str]]
"""(key in the policy, sentence)."""


def _sampler(policy: Policy) -> _Weaker:
    start, stop = policy.sampler.guidance_interval
    if (start, stop) != (0.0, 1.0):
        yield (
            "sampler.guidance_interval",
            f"images follow their prompt's guidance from {start:.0%} to {stop:.0%} of the way alone; the "
            "default is all of it",
        )


def _limits(policy: Policy) -> _Weaker:
    for name, field in Limits.model_fields.items():
        value, default = getattr(policy.limits, name), field.default
        if name != "prior" and looser(name, default, value):
            yield f"limits.{name}", f"limits.{name} is {value:g}; the default is {default:g}"
    default_prior = Limits.model_fields["prior"].default
    if policy.limits.prior != default_prior:
        yield (
            "limits.prior",
            f"limits.prior is {list(policy.limits.prior)}; the default is {list(default_prior)}",
        )
    if policy.claim == "detector":
        yield (
            "claim",
            "claim is 'detector'; the default, 'concept', also answers for what the detector misses",
        )


def _updates(policy: Policy) -> _Weaker:
    if policy.updates is None:
        return
    for name in ("share", "alpha_in", "max_drop"):
        value, default = getattr(policy.updates.claim, name), UpdateClaim.model_fields[name].default
        if value > default:
            key = f"updates.claim.{name}"
            yield key, f"{key} is {value:g}; the default is {default:g}"


def _members(policy: Policy, members: Sequence[AnyProbe]) -> _Weaker:
    """Of each kind of update what the middle one of its training steps and drawn values makes of it."""
    if policy.updates is None or not members:
        return
    whole, idle = 0.0, 0.0
    for use, probe in zip(policy.updates.population, members, strict=True):
        whole += use.weight
        if not isinstance(probe, WeightProbe) or not probe.methods:
            idle += use.weight
            continue
        least = ProbeUse(use=use.use, method=use.method, doses=(median_low(use.steps),))
        options = {
            name: median_low(values)
            for name, values in use.draw.items()
            if all(isinstance(value, int | float) for value in values)
        }
        for _, sentence in _probe(policy, least, probe, options):
            yield "updates.population", f"at the middle of what is drawn, {sentence}"
    if idle > whole / 2:
        yield (
            "updates.population",
            f"in the population {idle / whole:.0%} of the updates train nothing",
        )


def _untrained(probes: Sequence[AnyProbe]) -> _Weaker:
    if not any(isinstance(probe, WeightProbe) for probe in probes):
        yield "probes", "no probe changes a weight, so what ordinary updates bring back is not measured"


def _gate(policy: Policy) -> _Weaker:
    if policy.gate.decision != Decision():
        yield (
            "gate",
            (
                f"gate.decision is '{policy.gate.decision.sentence}'; the default is what "
                f"{policy.gate_detector} says itself"
            ),
        )


def _probe(
    policy: Policy, use: ProbeUse, probe: AnyProbe, drawn: Mapping[str, float] | None = None
) -> _Weaker:
    if isinstance(probe, PromptProbe):
        unasked = [c.name for c in policy.erase if not door.call(probe, lambda: list(probe.prompts(c)))]  # noqa: B023
        if unasked:
            yield f"probes.{probe.title}", f"{probe.title} has no prompt for {', '.join(unasked)}"
    if not isinstance(probe, WeightProbe):
        return
    title = door.call(probe, lambda: probe.title)
    key = f"probes.{title}-{use.method}" if probe.methods else f"probes.{title}"
    default = ProbeUse.model_fields["doses"].default[-1]
    if probe.methods and use.doses[-1] < default:
        yield (
            key,
            f"{title} ({use.method}) trains {use.doses[-1]} steps; the default is {default}",
        )
    usual = door.call(probe, probe.usual, use.method)
    if not isinstance(usual, Mapping) or not all(isinstance(value, int | float) for value in usual.values()):
        raise PluginError(
            f"{door.title(probe)} returned {usual!r} from usual(); a mapping of options to numbers is right."
        )
    for name, value in usual.items():
        own = (drawn or {}).get(name, getattr(probe.options, name, None))
        if own is not None and own < value:
            yield key, f"{title} ({use.method}) has {name} {own:g}; the default is {value:g}"


def _prompts(policy: Policy) -> _Weaker:
    for concept in policy.erase:
        usual = domain_prompts(concept.domain)
        if len(concept.templates) < len(usual):
            yield (
                f"erase.{concept.name}",
                (
                    f"{concept.name} is asked for in {len(concept.templates)} prompts; the default for its "
                    f"domain is {len(usual)}"
                ),
            )
