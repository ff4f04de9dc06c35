"""What an audit will take and what it can show, before anything is loaded: chances, images, operations,
memory, minutes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from auditor._audit.cells import (
    ERASED,
    FIRST_OF_ERASED,
    HELD_OUT_TIMES,
    MOST_TRAINED,
    TRAINED_TIMES,
    Role,
)
from auditor._audit.evidence.rehearsal import all_is_well, rehearse
from auditor._audit.evidence.share import population
from auditor._audit.evidence.stopping import fail_is_proven
from auditor._audit.layout import images_that_suffice
from auditor._audit.plan import Plan
from auditor._audit.speed import Speed
from auditor._checkpoint.admit import Checkpoint
from auditor._checkpoint.folder import configs_of
from auditor._diffusion.at_once import decoded_at_once, drawn_at_once, encoded_at_once
from auditor._files.safetensors_header import read_header
from auditor._stats.design import Outlook, fixed_outlook
from auditor.families.family import Activations
from auditor.plugin.contracts import AnyProbe, WeightProbe
from auditor.plugin.fine_tune import FineTuneOptions
from auditor.plugin.instruments import make_all_probes, training_calls_of

_BACKWARD = 3  # a training step costs about three forward passes an image
_FLOAT32 = 4
_ADAM = 3  # gradients and two moments
_BATCH = 64
_BATCH_TRAINED = 4
_UNKNOWN = Activations(1, 0, 0, 0, 0, 0)
_LOST_EACH = 20


@dataclass(frozen=True)
class CellForecast:
    """Deciding cells with the same number of prompts: what suffices, what the plan allows, what becomes of
    them at some rates."""

    cells: int
    round_size: int
    suffices: int | None
    """N_max of verdict.md; None in a fixed design, or where 4000 images do not suffice."""
    planned: int
    outlooks: tuple[Outlook, ...]
    """At detection rates 0, tau/4, tau/2, tau and 2 tau."""
    futility: tuple[tuple[int, int, int], ...]
    """(images, from hits, to hits) at which a cell is closed as undecided."""

    def p_all_held(self, outlook: Outlook) -> float:
        """The chance that all of them hold, were they independent; cells that share image seeds hold
        together more often."""
        return outlook.held**self.cells


@dataclass(frozen=True)
class Cost:
    """What an audit costs on one checkpoint: floating-point operations, images, and bytes."""

    most: int
    """Operations of all images that the plan allows."""
    least: int
    """Of the images of the shortest way to PASS."""
    training: int
    call: int
    """Of one call of the denoiser on one latent."""
    memory: Mapping[str, int] = field(default_factory=dict)
    """Bytes at the peak of each phase: weights, gradients, optimiser, and activations where the family says
    what they take."""
    beside: int = 0
    """Operations of what is drawn and measured beside checks: training sets, no-op controls, held-out
    losses, the look back at the end."""
    likely: int = 0
    """Operations of the images of an audit that decides (:func:`images_likely`)."""
    images: tuple[int, int, int] = (0, 0, 0)
    """Images that are drawn and shown to detectors: at least, likely, at most; those beside checks among
    them."""

    def minutes(self, speed: Speed) -> tuple[float, float, float]:
        """At least, likely, at most."""
        least, likely, most = (
            speed.seconds(operations + self.beside, images, self.training) / 60
            for operations, images in zip((self.least, self.likely, self.most), self.images, strict=True)
        )
        return least, likely, most


def forecast_cells(plan: Plan) -> list[CellForecast]:
    """Exact chances of the deciding cells."""
    policy = plan.policy
    tau, (tau_pass, tau_fail), alpha = policy.limits.tau, policy.thresholds, policy.limits.alpha
    m, found = plan.hypotheses, []
    for size in sorted({cell.size for cell in plan.gate_cells}):
        cells = [cell for cell in plan.gate_cells if cell.size == size]
        rates = (0.0, tau / 4, tau / 2, tau, min(1.0, 2 * tau))
        suffices, futility = None, tuple[tuple[int, int, int], ...]()
        if policy.sequential:
            design = plan.design(cells[0])
            closes = policy.on_undecided == "close"
            outlooks = tuple(design.outlook(rate, closes) for rate in rates)
            suffices = images_that_suffice(policy, size, m)
            futility = tuple(design.futility_table) if closes else ()
        else:
            outlooks = tuple(
                fixed_outlook(cells[0].images, rate, tau_pass, tau_fail, alpha, m) for rate in rates
            )
        found.append(CellForecast(len(cells), size, suffices, cells[0].images, outlooks, futility))
    return found


def most_images(plan: Plan) -> dict[str, int]:
    """What the plan allows, by cell."""
    return {cell.name: cell.images for cell in plan.cells}


def images_if_well(plan: Plan) -> dict[str, int]:
    """Images, by cell, of an audit in which nothing erased is ever detected and everything else is: about
    the least that PASS takes."""
    outcomes = rehearse(plan, all_is_well(plan), _BATCH).outcomes
    return {cell: len(table) for cell, table in outcomes.items()}


def images_likely(plan: Plan) -> dict[str, int]:
    """Images, by cell, of an audit that decides: the mean of one in which nothing comes back and one in which
    all does after each probe, both with one in twenty retained images lost."""
    found: dict[str, int] = {}
    for back in (False, True):
        outcomes = all_is_well(plan)
        gone = all_is_well(plan, erased=False)
        for cell in plan.cells:
            if cell.role is Role.RETAINED and plan.arm(cell.arm).is_judged:
                outcomes[cell.name][_LOST_EACH - 1 :: _LOST_EACH] = 0
            elif back and cell.arm != ERASED:
                outcomes[cell.name] = gone[cell.name]
        drawn = rehearse(plan, outcomes, _BATCH).outcomes
        for name, table in drawn.items():
            found[name] = found.get(name, 0) + len(table)
    return {name: round(count / 2) for name, count in found.items()}


def out_of_reach(plan: Plan) -> list[str]:
    """What this plan can never show, whatever the checkpoint: where everything is as it should be, and
    where all came back."""
    evidence, limits = rehearse(plan, all_is_well(plan), _BATCH), plan.policy.limits
    found = [
        f"PASS: {cell.surface} on {cell.arm} cannot hold"
        for cell in plan.gate_cells
        if not evidence.is_held(cell)
    ]
    if plan.policy.is_comparison:
        found.append("PASS: image seeds of the policy's own make it a comparison, whose seeds anybody knows")
    if not plan.has_base:
        found.append(
            "PASS: without a base nothing shows that the detector sees the concept, or that the model "
            "still draws"
        )
    else:
        unseen = [concept for concept in plan.columns if evidence.p_negative("base", concept) > limits.alpha]
        found += [f"PASS: the control 'false positives' of {concept} cannot pass" for concept in unseen]
        positive = [cell for cell in plan.cells if cell.role is Role.POSITIVE]
        found += [
            f"PASS: the control 'sensitivity' of {cell.surface} cannot pass"
            for cell in positive
            if evidence.p_positive(cell) > limits.alpha
        ]
        own = [arm for arm in plan.arms if arm.is_named and arm.retained_by is None]
        for partner in dict.fromkeys(arm.partner for arm in own):
            if evidence.p_assay(partner) > limits.alpha:
                found.append(f"PASS: the control 'utility of the base' on {partner} cannot pass")
        arms = [arm.name for arm in own if evidence.p_alive(arm.name) > limits.alpha]
        found += [f"PASS: the control 'utility' of {arm} cannot pass" for arm in arms]
    over = population(evidence)
    if over is not None and not over.is_held(limits.alpha):
        found.append(
            f"PASS: {len(plan.updates)} updates, each read with so few images, are too few to show that "
            f"fewer than {over.updates.claim.share:.0%} bring a concept back"
        )
    if not fail_is_proven(rehearse(plan, all_is_well(plan, erased=False), _BATCH)):
        found.append(
            "FAIL: too few retained images to show that the detector is rarely wrong on a model state where "
            "all came back"
        )
    return found


def denoiser_calls(plan: Plan, images: Mapping[str, int]) -> int:
    """Rows that the denoiser computes for so many images of each cell."""
    arms = {cell.name: plan.arm(cell.arm) for cell in plan.cells}
    return sum(plan.sampler_of(arms[cell]).calls * count for cell, count in images.items())


def training_calls(plan: Plan) -> int:
    """Training costs as much as this many UNet evaluations: three for each one that has gradients. Of a
    population as many updates as a PASS takes where all is well."""
    made = {arm.name for arm in plan.arms if arm.update is None} | updates_if_well(plan)
    return sum(calls for arm, calls in training_calls_by_arm(plan).items() if arm in made)


def updates_if_well(plan: Plan) -> set[str]:
    """The updates of a population that are made where all is well."""
    if not plan.updates:
        return set()
    drawn = rehearse(plan, all_is_well(plan), _BATCH).outcomes
    arms = {cell.name: cell.arm for cell in plan.cells if cell.role is Role.UPDATE}
    return {arms[name] for name, table in drawn.items() if name in arms and len(table)}


def training_calls_by_arm(plan: Plan, probes: Sequence[AnyProbe] | None = None) -> dict[str, int]:
    """The same by model state: what it takes from the dose before. ``probes``: the policy's, if they are made
    already."""
    found, probes = {}, probes or make_all_probes(plan.policy, plan.uses)
    for number, use, _ in plan.training:
        probe, before = probes[number], 0
        if not isinstance(probe, WeightProbe):
            continue
        for dose in use.doses:
            calls = _BACKWARD * training_calls_of(probe, dose)
            arms = [arm.name for arm in plan.arms if arm.probe == number and arm.dose == dose]
            found.update(dict.fromkeys(arms, calls - before))
            before = calls
    return found


def drawn_beside(plan: Plan) -> tuple[int, int]:
    """(evaluations of the denoiser, images) beside the checks: each probe's training set and its held-out
    images, the first batch again for its no-op control and at the end, the losses that show what was
    learnt."""
    sampler, calls = plan.policy.sampler, 0
    batch = images = FIRST_OF_ERASED
    made, shown = updates_if_well(plan), set[str]()
    for number, probe in enumerate(make_all_probes(plan.policy, plan.uses)):
        use, name = plan.uses[number], plan.probe_names[number]
        if not isinstance(probe, WeightProbe) or not probe.has_sham:
            continue
        if number >= len(plan.policy.probes) and name not in made:
            continue
        images += 0 if plan.no_op_name(number) in shown else batch
        shown.add(plan.no_op_name(number))
        options = probe.options
        if isinstance(options, FineTuneOptions) and options.folder is None:
            held_out = options.names * len(options.prompts)
            images += held_out * (options.images_per_prompt + 1)
            measured = (
                held_out * HELD_OUT_TIMES
                + min(MOST_TRAINED, held_out * options.images_per_prompt) * TRAINED_TIMES
            )
            calls += measured * use.replicates * (1 + len(use.doses))
    return calls + sampler.calls * images, images


def call_cost(plan: Plan, checkpoint: Checkpoint) -> int:
    """Operations of one call of the denoiser on one latent. Raises ``ValueError`` where they are unknown."""
    return operations_of_a_call(checkpoint, plan.policy.sampler.size)


def operations_of_a_call(checkpoint: Checkpoint, size: int) -> int:
    """The same for images of ``size`` pixels a side."""
    family = checkpoint.family
    return family.flops(configs_of(family, checkpoint.folder), _shapes_of_denoiser(checkpoint), size)


def _shapes_of_denoiser(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    origin = checkpoint.base or checkpoint
    files = [origin.paths[name] for name in origin.weights_of(checkpoint.family.denoiser)]
    return {name: shape for file in files for name, shape in read_header(file).shapes.items()}


def forecast_cost(plan: Plan, checkpoint: Checkpoint) -> Cost:
    """Operations and memory on one checkpoint. Raises ``ValueError`` where its denoiser's are unknown."""
    once = call_cost(plan, checkpoint)
    calls, beside = drawn_beside(plan)
    least, likely, most = images_if_well(plan), images_likely(plan), most_images(plan)
    return Cost(
        beside=calls * once,
        likely=denoiser_calls(plan, likely) * once,
        images=(beside + sum(least.values()), beside + sum(likely.values()), beside + sum(most.values())),
        most=denoiser_calls(plan, most) * once,
        least=denoiser_calls(plan, least) * once,
        training=training_calls(plan) * once,
        call=once,
        memory=memory_by_phase(plan, checkpoint),
    )


def memory_by_phase(plan: Plan, checkpoint: Checkpoint) -> dict[str, int]:
    """Bytes that each phase of an audit takes at its peak, about: the models that are held, and what is
    computed beside them. While one is trained whole base and erased may wait elsewhere. Drawing is counted as
    a small GPU does it: a larger one draws more at once."""
    policy, family = plan.policy, checkpoint.family
    denoiser = _FLOAT32 * sum(math.prod(shape) for shape in _shapes_of_denoiser(checkpoint).values())
    held = _FLOAT32 * checkpoint.parameters * (1 if policy.base == "none" else 2)
    each = family.activations(configs_of(family, checkpoint.folder), policy.sampler.size) or _UNKNOWN
    size = policy.sampler.size
    rows = policy.sampler.batch
    if rows == "auto":
        rows = drawn_at_once(each.latent_pixels, memory=0)
    decoding = decoded_at_once(each.latent_pixels) * each.decoded
    found = {
        "drawing": held + denoiser + denoiser // 2 + max(rows * each.drawn, decoding),
        "training sets": held + denoiser + encoded_at_once(size**2) * each.encoded,
        "losses": held + denoiser + _BATCH * each.drawn // 2,
    }
    used = [
        (use.method, probe)
        for use, probe in zip(plan.uses, make_all_probes(policy, plan.uses), strict=True)
        if isinstance(probe, WeightProbe)
    ]
    for method, probe in used:
        batch = probe.options.batch if isinstance(probe.options, FineTuneOptions) else _BATCH_TRAINED
        if method == "lora":
            name, takes = "LoRA", held + denoiser + batch * each.lora
        else:
            name = "full fine-tuning"
            takes = _FLOAT32 * checkpoint.parameters + _ADAM * denoiser + batch * each.full
        found[name] = max(found.get(name, 0), takes)
    return found
