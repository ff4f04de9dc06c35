"""What an audit will take and what it can show, before anything is loaded: chances, images, operations,
memory, minutes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from auditor._audit.cells import Role
from auditor._audit.evidence.rehearsal import all_is_well, rehearse
from auditor._audit.evidence.stopping import fail_is_proven
from auditor._audit.plan import Plan, images_that_suffice
from auditor._checkpoint.admit import Checkpoint
from auditor._checkpoint.folder import configs_of
from auditor._files.safetensors_header import read_header
from auditor._files.whole_files import write_whole
from auditor._stats.design import Outlook, fixed_outlook
from auditor.plugin.contracts import WeightProbe
from auditor.plugin.instruments import make_probes, training_calls_of

_BACKWARD = 3  # a training step costs about three forward passes an image
_FLOAT32 = 4
_ADAM = 3  # gradients and two moments
_BATCH = 64


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
    """What an audit costs on one checkpoint: floating-point operations, and bytes."""

    most: int
    """Of all images that the plan allows."""
    least: int
    """Of the images of the shortest way to PASS."""
    training: int
    peak_bytes: int
    """Of weights, gradients and optimiser, in float32; activations come on top."""


def forecast_cells(plan: Plan) -> list[CellForecast]:
    """Exact chances of the deciding cells."""
    policy = plan.policy
    tau, (tau_pass, tau_fail), alpha = policy.limits.tau, policy.thresholds, policy.limits.alpha
    m, found = len(plan.gate_cells), []
    for size in sorted({cell.size for cell in plan.gate_cells}):
        cells = [cell for cell in plan.gate_cells if cell.size == size]
        rates = (0.0, tau / 4, tau / 2, tau, min(1.0, 2 * tau))
        suffices, futility = None, tuple[tuple[int, int, int], ...]()
        if policy.sequential:
            design = plan.design(cells[0])
            outlooks = tuple(design.outlook(rate) for rate in rates)
            suffices, futility = images_that_suffice(policy, size, m), tuple(design.futility_table)
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


def out_of_reach(plan: Plan) -> list[str]:
    """What this plan can never show, whatever the checkpoint: where everything is as it should be, and
    where all came back."""
    evidence, limits = rehearse(plan, all_is_well(plan), _BATCH), plan.policy.limits
    found = [
        f"PASS: {cell.surface} on {cell.arm} cannot hold"
        for cell in plan.gate_cells
        if not evidence.is_held(cell)
    ]
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
        own = [arm for arm in plan.arms if arm.is_judged and arm.retained_by is None]
        for partner in dict.fromkeys(arm.partner for arm in own):
            if evidence.p_assay(partner) > limits.alpha:
                found.append(f"PASS: the control 'utility of the base' on {partner} cannot pass")
        arms = [arm.name for arm in own if evidence.p_alive(arm.name) > limits.alpha]
        found += [f"PASS: the control 'utility' of {arm} cannot pass" for arm in arms]
    if not fail_is_proven(rehearse(plan, all_is_well(plan, erased=False), _BATCH)):
        found.append(
            "FAIL: too few retained images to show that the detector is rarely wrong on a model state where "
            "all came back"
        )
    return found


def denoiser_calls(plan: Plan, images: Mapping[str, int]) -> int:
    """Evaluations of the denoiser for so many images of each cell: two a step, for guidance."""
    arms = {cell.name: plan.arm(cell.arm) for cell in plan.cells}
    return sum(2 * plan.sampler_of(arms[cell]).steps * count for cell, count in images.items())


def training_calls(plan: Plan) -> int:
    """Training costs as much as this many calls of the denoiser: three for each one that has gradients."""
    calls = 0
    for use, probe in zip(plan.policy.probes, make_probes(plan.policy), strict=True):
        if isinstance(probe, WeightProbe):
            calls += use.replicates * training_calls_of(probe, use.doses[-1])
    return _BACKWARD * calls


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
    denoiser = sum(math.prod(shape) for shape in _shapes_of_denoiser(checkpoint).values())
    models = 2 if plan.policy.base != "none" else 1
    trained = denoiser * _ADAM if any(use.method == "full" for use in plan.policy.probes) else 0
    return Cost(
        most=denoiser_calls(plan, most_images(plan)) * once,
        least=denoiser_calls(plan, images_if_well(plan)) * once,
        training=training_calls(plan) * once,
        # the arm is drawn from a copy of its denoiser
        peak_bytes=_FLOAT32 * ((models + 1) * checkpoint.parameters + trained + denoiser),
    )


# -- the rate of this machine --------------------------------------------------------------------------------


def keep_rate(cache: Path | None, device: str, operations: int, seconds: float) -> None:
    """Remember how many operations a second drawing reached in an audit on this machine, for the next
    plan's minutes."""
    if cache is not None and operations and seconds > 0:
        write_whole(
            cache / "rates" / "last.json",
            json.dumps({"device": device, "flops": operations / seconds}).encode(),
        )


def kept_rate(cache: Path | None) -> float | None:
    """Operations a second of the last audit on this machine; None before the first."""
    if cache is None:
        return None
    try:
        return float(json.loads((cache / "rates" / "last.json").read_text(encoding="utf-8"))["flops"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
