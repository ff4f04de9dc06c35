"""A policy in words: what it demands, what a PASS of it needs, and what its author should know first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from auditor._audit.cost import Cost, forecast_cells, images_if_well, out_of_reach, updates_if_well
from auditor._audit.plan import Plan
from auditor._audit.power import powers
from auditor._audit.speed import Speed
from auditor._audit.weaker import weaker_than_default
from auditor._files.relative_paths import relative_to
from auditor._process.device import device_memory
from auditor.plugin.instruments import make_members, make_probes
from auditor.policy import oddity_of
from auditor.report.words import percent

_FEW_PROMPTS = 3


def warnings(plan: Plan) -> Iterator[str]:
    """What a policy's author should know before trusting a PASS of it."""
    policy = plan.policy
    yield from (f"Out of reach, whatever the checkpoint: {reason}." for reason in out_of_reach(plan))
    weaker = weaker_than_default(policy, make_probes(policy), make_members(policy))
    yield from (f"Weaker than the default: {sentence}." for sentence in weaker)
    for detector in policy.detectors:
        labels = detector.options.get("labels")
        with relative_to(policy.folder):
            count = _labels(labels) if labels is not None else None
        if count and policy.limits.tau < 2 / count:
            yield (
                f"{detector.use} chooses among {count} labels, so by chance alone it says one of them in "
                f"{1 / count:.0%} of images; tau is {policy.limits.tau:.0%}. Give it at least "
                f"{2 / policy.limits.tau:.0f} labels, or a larger tau."
            )
    once = sorted({use.use for _, use, _ in plan.named_training if use.replicates == 1})
    if once and policy.updates is None:
        yield (
            f"One training seed each for {', '.join(once)}: another may bring back what this one does not. "
            "Raise 'replicates'."
        )
    for concept in (*policy.erase, *policy.retain):
        for name in (concept.name, *concept.synonyms):
            if oddity := oddity_of(name):
                yield f"{oddity}: a text encoder reads it as another name than it looks like."
    few = [concept.name for concept in policy.erase if len(concept.templates) < _FEW_PROMPTS]
    if few:
        yield f"{', '.join(few)}: fewer than {_FEW_PROMPTS} prompts. A PASS speaks of these prompts alone."
    if policy.synonyms == "report" and any(concept.synonyms for concept in policy.erase):
        yield (
            "Synonyms are drawn and reported, and decide nothing; 'synonyms: gate' makes them part of the "
            "verdict."
        )
    if not plan.training:
        yield (
            "No probe changes weights: an ordinary fine-tune, which is what brings concepts back, is not "
            "tried."
        )
    elif not {"full", "lora"} <= _methods(plan):
        yield (
            "Only one of LoRA and full fine-tuning is tried; in the paper either may bring a concept back "
            "where the other does not."
        )
    if policy.budget.minutes is not None:
        yield (
            "budget.minutes may end the run before the verdict is clear; what is not drawn by then stays "
            "undecided."
        )


def _methods(plan: Plan) -> set[str]:
    """How weights are trained, by probes and by the population."""
    population = () if plan.policy.updates is None else plan.policy.updates.population
    return {use.method for _, use, _ in plan.named_training} | {use.method for use in population}


def _labels(labels: Any) -> int:
    from auditor.policy.concepts.sets import resolve_names

    names = resolve_names(labels)
    return len(names) if isinstance(names, list | tuple) else 0


def explain(plan: Plan, cost: Cost | None = None, speed: Speed | None = None) -> Iterator[str]:
    """A policy in words, sentence by sentence.

    With its ``cost`` on a checkpoint and the ``speed`` of this machine also how long it takes.
    """
    policy, limits = plan.policy, plan.policy.limits
    tau_pass, tau_fail = policy.thresholds
    erased = ", ".join(concept.name for concept in policy.erase)
    others = len([arm for arm in plan.arms if arm.probe is not None and arm.is_named])
    yield (
        f"Erased: {erased}. The checkpoint is audited as it is and in {others} other model "
        f"states; {len(plan.gate_cells)} rates decide."
    )
    yield (
        f"PASS: each of them is shown to be below {percent(tau_pass, 1)} at level {limits.alpha}. FAIL: one "
        f"is shown to be above {percent(tau_fail, 1)}. Anything else is INCONCLUSIVE."
    )
    yield from _over_updates(plan)
    lost = out_of_reach(plan)
    yield from (f"Out of reach, whatever the checkpoint: {reason}." for reason in lost)
    if policy.base != "none":
        yield (
            "For a PASS the base must also show that the detector finds the concept in at least "
            f"{percent(limits.min_sensitivity)} of its images and says it of at most "
            f"{percent(limits.max_false_positive)} of others, and draw at least {percent(limits.min_retain)} "
            f"of what is kept; every model state must keep it (at most {percent(limits.max_retain_drop)} "
            "lost), every probe must have taken effect, and its machinery alone must change nothing. A "
            "FAIL needs the detector to be rarely wrong on the very arm that fails."
        )
    kept = ", ".join(concept.name for concept in policy.retain) or "nothing"
    yield f"To be kept: {kept}."
    if policy.sequential:
        yield (
            "Images are drawn in rounds until a rate is clear: at least "
            f"{sum(images_if_well(plan).values())} in all where everything is well, at most {plan.images}."
        )
    else:
        yield f"{plan.images} images are drawn and read once."
    can_pass = not any(reason.startswith("PASS") for reason in lost)
    for index, at in ((0, "0"), (1, "tau/4"), (3, "tau")):
        chance = 1.0
        for group in forecast_cells(plan):
            chance *= group.p_all_held(group.outlooks[index])
        but = "" if can_pass else " (and still no PASS)"
        yield f"Chance that every rate holds, were all of them {at}: {chance:.1%}{but}."
    yield from powers(plan)
    yield f"{plan.training_steps} training steps. {_minutes(cost, speed)}"


def _over_updates(plan: Plan) -> Iterator[str]:
    """What is claimed of a population, and what that takes where all is well."""
    updates = plan.policy.updates
    if updates is None:
        return
    claim, population = updates.claim, updates.population
    whole = sum(use.weight for use in population)
    kinds = ", ".join(
        f"{member.name} {percent(use.weight / whole)}"
        for use, member in zip(population, plan.members, strict=True)
    )
    what = "updates" if claim.over == "updates" else "pairs of an update and a concept"
    need = len(updates_if_well(plan))
    yield (
        f"Over ordinary updates: each is drawn from the audit's seed ({kinds}). PASS: fewer than "
        f"{percent(claim.share)} of such {what} bring a concept back; FAIL: more do. An update is clean "
        f"where the rate is shown to be below {percent(plan.policy.thresholds_of_updates[0], 1)}, less than "
        f"{percent(claim.max_drop)} of what is kept is lost, and it took. Where all are clean {need} of them "
        f"suffice; {updates.budget.updates} are made at most."
    )


def _minutes(cost: Cost | None, speed: Speed | None) -> str:
    if cost is None:
        return (
            "Minutes are not known: the base is not on this machine, or no UNet whose cost is known; see "
            "'auditor plan CHECKPOINT'."
        )
    if speed is None:
        return "Minutes are not known before the first audit on this machine."
    return f"It takes {minutes_of(cost, speed)}."


def minutes_of(cost: Cost, speed: Speed) -> str:
    """How long an audit takes, in words."""
    least, likely, most = cost.minutes(speed)
    return (
        f"about {likely:.2g} minutes ({least:.2g} where all is well, {most:.2g} where every image of the "
        f"budget is needed), {speed.known}"
    )


_CARDS = (8, 12, 16, 24, 32, 40, 48, 80)  # GB that GPUs are sold with
_FREE = 0.9  # of a GPU's memory, what is left beside its libraries


def memory_of(cost: Cost) -> str:
    """What memory an audit takes, phase by phase, in words."""
    phases = ", ".join(f"{name} {size / 2**30:.2g}" for name, size in cost.memory.items())
    most = max(cost.memory.values())
    card = next((size for size in _CARDS if most <= _FREE * size * 10**9), None)
    fits = "no single GPU that is sold" if card is None else f"a GPU with {card} GB"
    here, said = device_memory(), ""
    if here is not None and most > _FREE * here:
        said = f"; this one has {here / 10**9:.0f} GB, and batches will be halved where it ends"
    return f"memory in GiB, about: {phases} (less where activations are computed again); enough: {fits}{said}"
