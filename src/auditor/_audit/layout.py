"""Arms and cells: what is drawn of each model state, in how many rounds of how many prompts. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from auditor._audit.cells import BASE, ERASED, LARGEST_ROUND, Arm, Cell, Item, Role, Weights
from auditor._audit.population import DrawnUpdate
from auditor._stats.design import enough_images
from auditor.errors import PolicyError
from auditor.plugin.planned import PlannedProbe
from auditor.policy import Concept, Policy, ProbeUse


def arms_of_probe(number: int, use: ProbeUse, probe: PlannedProbe, *, has_base: bool) -> Iterator[Arm]:
    """The arms of one probe; before one that samples or asks otherwise the base in the same way."""
    if probe.kind == "weights":
        for replicate in range(1, use.replicates + 1):
            for dose in use.doses:
                name = _arm_name(use, probe.name, replicate, dose)
                yield Arm(name, Weights.UPDATED, number, replicate, dose)
        return
    partner, sampled = f"{BASE}.{probe.name}", probe.kind == "sampling"
    if has_base:
        yield Arm(
            partner,
            Weights.BASE,
            number,
            sampler=probe.sampler,
            partner=partner,
            retained_by=None if sampled else BASE,
        )
    yield Arm(
        probe.name,
        Weights.ERASED,
        number,
        sampler=probe.sampler,
        partner=partner,
        retained_by=None if sampled else ERASED,
    )


def arms_of_update(number: int, update: DrawnUpdate) -> tuple[Arm, Arm]:
    """The base with the noise of one update's retained images, and the model after it."""
    partner = f"{BASE}.{update.name}"
    steps = update.use.doses[-1]
    return (
        Arm(partner, Weights.BASE, number, partner=partner, update=update.number),
        Arm(update.name, Weights.UPDATED, number, dose=steps, partner=partner, update=update.number),
    )


def cells_of_update(policy: Policy, update: DrawnUpdate, arms: tuple[Arm, Arm]) -> Iterator[Cell]:
    assert policy.updates is not None
    budget, (base, updated) = policy.updates.budget, arms
    for concept in policy.erase:
        if update.concept not in (None, concept.name):
            continue
        key = "updates.budget.images_per_update"
        for role, surface, items in Asked(policy, None).of(concept):
            if role is Role.GATE:  # its name, and synonyms that decide
                size, most = _rounds(policy, items, budget.images_per_update, key, concept.name)
                own = updated.name, Role.UPDATE, concept.name, surface, items
                yield Cell(*own, size, most, update=update.number)
    items = tuple(item for concept in policy.retain for item in _items(concept, concept.name))
    what = "the retained concepts"
    size, most = _rounds(
        policy, items, budget.retained_per_update, "updates.budget.retained_per_update", what
    )
    for arm in (base, updated):
        yield Cell(arm.name, Role.RETAINED, "", "", items, size, most, update=update.number)


def images_that_suffice(policy: Policy, size: int, cells: int) -> int | None:
    """N_max of verdict.md: images a sequential cell needs to hold at a rate of tau/4 with chance 1 -
    0.1/``cells``; None: over 4000."""
    tau_pass, tau_fail = policy.thresholds
    return enough_images(
        size, policy.limits.tau, tau_pass, tau_fail, policy.limits.alpha, cells, policy.limits.prior
    )


def _arm_name(use: ProbeUse, name: str, replicate: int, dose: int) -> str:
    """Short where there is only one replicate or dose."""
    tail = f".seed{replicate}" if use.replicates > 1 else ""
    return name + tail + (f".step{dose}" if len(use.doses) > 1 else "")


@dataclass(frozen=True)
class Asked:
    """What is asked of an arm about erased concepts: the policy's prompts, or those of a prompt probe."""

    policy: Policy
    probe: PlannedProbe | None

    @property
    def deciding(self) -> int:
        """How many of an arm's checks decide."""
        return sum(role is Role.GATE for concept in self.policy.erase for role, *_ in self.of(concept))

    def of(self, concept: Concept) -> Iterator[tuple[Role, str, tuple[Item, ...]]]:
        """(role, surface, items) of every cell that one erased concept has."""
        for name in (concept.name, *concept.synonyms):
            role = Role.GATE if name == concept.name or self.policy.synonyms == "gate" else Role.REPORT
            items = _items(concept, name)
            if self.probe is not None and self.probe.kind == "prompts":
                if name != concept.name:
                    continue
                prompts = self.probe.prompts.get(concept.name, ())
                items = tuple(Item(concept.name, prompt) for prompt in prompts)
            if not items:
                continue
            if self.policy.unit == "prompt":
                yield from ((role, item.prompt, (item,)) for item in items)
            else:
                yield role, name, items


def _items(concept: Concept, name: str) -> tuple[Item, ...]:
    """The concept's prompts with ``name`` in them."""
    seeds = concept.evaluation_seeds or ((),) * len(concept.templates)
    return tuple(
        Item(concept.name, template.format(name), own)
        for template, own in zip(concept.templates, seeds, strict=True)
    )


def cells_of(policy: Policy, arm: Arm, asked: Asked, deciding: int) -> Iterator[Cell]:
    budget = policy.budget
    for concept in policy.erase:
        for role, surface, items in asked.of(concept):
            size, most = _rounds(
                policy, items, budget.images_per_cell, "budget.images_per_cell", concept.name
            )
            if role is Role.REPORT and policy.sequential:
                most = min(most, -(-budget.images_per_synonym // size))
            if arm.is_judged:
                closed = policy.sequential and (policy.on_undecided == "close" or role is Role.REPORT)
                enough = images_that_suffice(policy, size, deciding) if closed else None
                rounds = min(most, (enough or most * size) // size)
                yield Cell(arm.name, role, concept.name, surface, items, size, rounds)
            elif role is Role.GATE:
                yield Cell(arm.name, Role.POSITIVE, concept.name, surface, items, size, most)
                yield Cell(arm.name, Role.PICTURE, concept.name, surface, items, size, 1)
    items = tuple(item for concept in policy.retain for item in _items(concept, concept.name))
    if items and arm.retained_by is None:
        size, most = _rounds(
            policy, items, budget.retained_per_arm, "budget.retained_per_arm", "the retained concepts"
        )
        yield Cell(arm.name, Role.RETAINED, "", "", items, size, most)


def _rounds(policy: Policy, items: tuple[Item, ...], images: int, key: str, what: str) -> tuple[int, int]:
    """(images in a round, rounds) that ``images`` allow."""
    size = min(len(items), LARGEST_ROUND) if policy.sequential else len(items)
    images = min([images, *(size * len(item.seeds) for item in items if item.seeds)])
    if images < size:
        raise PolicyError(
            f"{key} is {images}, below one image of each prompt of {what} ({size} images); raise it."
        )
    return size, images // size
