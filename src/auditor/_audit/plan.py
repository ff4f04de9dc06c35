"""What will be drawn, and what it costs: policy and checkpoint facts in; arms, cells and rounds out. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from auditor._audit.cells import BASE, ERASED, LARGEST_ROUND, Arm, Cell, Item, Role, Seeds, Weights
from auditor._files.digest import sha256_json
from auditor._stats.design import Design, design, enough_images
from auditor.errors import PolicyError
from auditor.plugin.instruments import Contents, Instruments, make_probes
from auditor.plugin.planned import PlannedProbe, planned_probes
from auditor.policy import Concept, Policy, ProbeUse, Sampler


@dataclass(frozen=True)
class Plan:
    """Arms and cells, fixed before the first image."""

    policy: Policy
    arms: tuple[Arm, ...]
    cells: tuple[Cell, ...]
    probes: tuple[PlannedProbe, ...]
    contents: Contents = field(default_factory=dict)
    """Of what the policy's plugins decide by (:mod:`auditor.plugin.instruments`); empty where nothing is
    run."""
    asked: Policy | None = None
    """The policy as it was written, where a larger budget was given beside it; None: ``policy`` itself."""

    @property
    def policy_digest(self) -> str:
        """The digest that is pinned and reported: of the policy as it was written."""
        return (self.asked or self.policy).digest(self.contents)

    @cached_property
    def gate_cells(self) -> tuple[Cell, ...]:
        """The cells that decide; their number is m of verdict.md, for good."""
        return tuple(cell for cell in self.cells if cell.role is Role.GATE)

    @property
    def has_base(self) -> bool:
        """Is the model before erasure there to compare with?"""
        return self.arms[0].name == BASE

    @property
    def probe_names(self) -> tuple[str, ...]:
        """What reports call the probes."""
        return tuple(probe.name for probe in self.probes)

    @property
    def training(self) -> tuple[tuple[int, ProbeUse, str], ...]:
        """(number, use, name) of each probe that changes weights."""
        found = enumerate(zip(self.policy.probes, self.probes, strict=True))
        return tuple((number, use, probe.name) for number, (use, probe) in found if probe.kind == "weights")

    def arm(self, name: str) -> Arm:
        """One arm by its name."""
        return self._arms[name]

    @cached_property
    def _arms(self) -> dict[str, Arm]:
        return {arm.name: arm for arm in self.arms}

    def sampler_of(self, arm: Arm) -> Sampler:
        """How an arm's images are drawn."""
        return arm.sampler or self.policy.sampler

    def is_last_dose(self, arm: Arm) -> bool:
        """Is this the arm that must show that its probe took: of training the highest dose of its seed?"""
        if arm.probe is None or not arm.is_judged:
            return False
        return self.probes[arm.probe].kind != "weights" or self.policy.probes[arm.probe].doses[-1] == arm.dose

    def retained_of(self, arm: str) -> Cell | None:
        """The retained images that speak for an arm."""
        return self.cell(self.arm(arm).retained_by or arm, Role.RETAINED) if arm in self._arms else None

    def retained_partner(self, arm: str) -> Cell | None:
        """The base's images of the same prompts and seeds, drawn in the same way."""
        if arm not in self._arms:
            return None
        own = self.arm(self.arm(arm).retained_by or arm)
        return self.cell(own.partner, Role.RETAINED)

    def cells_of(self, arm: str) -> tuple[Cell, ...]:
        """The cells of one arm."""
        return self._by_arm[arm]

    def cell(self, arm: str, role: Role, surface: str = "") -> Cell | None:
        """One cell, or None where none was planned (without a base none is). Of retained cells an arm has
        one: no surface is asked."""
        return next(
            (
                c
                for c in self._by_arm.get(arm, ())
                if c.role is role and (role is Role.RETAINED or c.surface == surface)
            ),
            None,
        )

    @cached_property
    def _by_arm(self) -> dict[str, tuple[Cell, ...]]:
        return {arm.name: tuple(cell for cell in self.cells if cell.arm == arm.name) for arm in self.arms}

    @cached_property
    def columns(self) -> dict[str, int]:
        """Every concept with its column in a table of outcomes: erased ones, then retained ones."""
        return {
            concept.name: number for number, concept in enumerate((*self.policy.erase, *self.policy.retain))
        }

    def design(self, cell: Cell) -> Design:
        """How a cell that is read after every round decides."""
        return _design(self.policy, cell.size, len(self.gate_cells), cell.images)

    @property
    def images(self) -> int:
        """The most images the run can draw, training sets aside."""
        return sum(cell.images for cell in self.cells)

    @property
    def training_steps(self) -> int:
        """Steps, or whatever doses are counted in, of all probes and replicates."""
        return sum(use.replicates * use.doses[-1] for _, use, _ in self.training)


def derive_seeds(policy: Policy, checkpoint: str, base: str | None) -> Seeds:
    """Seeds from policy, checkpoint and nonce, so that nobody re-rolls until PASS (verdict.md, "Sampling
    scheme").

    ``checkpoint`` and ``base`` are the digests of what is drawn with (``Checkpoint.drawn_digest``).
    """
    return Seeds(
        audit=sha256_json([policy.seed_digest(), checkpoint, base or "", policy.nonce or ""]),
        shared=sha256_json([policy.seed_digest(), base or ""]),
    )


def make_plan(policy: Policy, instruments: Instruments | None = None, *, asked: Policy | None = None) -> Plan:
    """Lay out every arm and cell that ``policy`` demands; ``asked``: see :class:`Plan`.

    Without ``instruments`` its probes are made to be asked for their names, and nothing is known of what its
    plugins decide by.
    """
    if instruments is None:
        return lay_out(policy, planned_probes(policy, make_probes(policy)), {}, asked)
    return lay_out(policy, planned_probes(policy, instruments.probes), instruments.contents(), asked)


def lay_out(
    policy: Policy, probes: tuple[PlannedProbe, ...], contents: Contents, asked: Policy | None = None
) -> Plan:
    """The same from what an earlier run noted of its plugins: the ``probes``, and their ``contents``."""
    has_base = policy.base != "none"
    arms = [Arm(BASE, Weights.BASE)] if has_base else []
    arms.append(Arm(ERASED, Weights.ERASED))
    for number, (use, probe) in enumerate(zip(policy.probes, probes, strict=True)):
        arms += _arms(number, use, probe, has_base=has_base)
    prompts = {arm.name: _Asked(policy, None if arm.probe is None else probes[arm.probe]) for arm in arms}
    deciding = sum(prompts[arm.name].deciding for arm in arms if arm.is_judged)
    cells = [cell for arm in arms for cell in _cells(policy, arm, prompts[arm.name], deciding)]
    cell_names = [cell.name for cell in cells]
    twice = next((name for name in cell_names if cell_names.count(name) > 1), None)
    if twice:
        raise PolicyError(
            f"Two concepts lead to the same check ({twice}): their prompts are the same text; change one."
        )
    return Plan(policy, tuple(arms), tuple(cells), probes, contents, asked)


def _arms(number: int, use: ProbeUse, probe: PlannedProbe, *, has_base: bool) -> Iterator[Arm]:
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


def images_that_suffice(policy: Policy, size: int, cells: int) -> int | None:
    """N_max of verdict.md: images a sequential cell needs to hold at a rate of tau/4 with chance 1 -
    0.1/``cells``; None: over 4000."""
    tau_pass, tau_fail = policy.thresholds
    return enough_images(
        size, policy.limits.tau, tau_pass, tau_fail, policy.limits.alpha, cells, policy.limits.prior
    )


def _design(policy: Policy, size: int, cells: int, most_images: int) -> Design:
    tau_pass, tau_fail = policy.thresholds
    return design(
        size,
        policy.limits.tau,
        tau_pass,
        tau_fail,
        policy.limits.alpha,
        cells,
        policy.limits.prior,
        most_images,
    )


def _arm_name(use: ProbeUse, name: str, replicate: int, dose: int) -> str:
    """Short where there is only one replicate or dose."""
    tail = f".seed{replicate}" if use.replicates > 1 else ""
    return name + tail + (f".step{dose}" if len(use.doses) > 1 else "")


@dataclass(frozen=True)
class _Asked:
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


def _cells(policy: Policy, arm: Arm, asked: _Asked, deciding: int) -> Iterator[Cell]:
    budget = policy.budget
    for concept in policy.erase:
        for role, surface, items in asked.of(concept):
            size, most = _rounds(policy, items, budget.images_per_cell, "images_per_cell", concept.name)
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
            policy, items, budget.retained_per_arm, "retained_per_arm", "the retained concepts"
        )
        yield Cell(arm.name, Role.RETAINED, "", "", items, size, most)


def _rounds(policy: Policy, items: tuple[Item, ...], images: int, key: str, what: str) -> tuple[int, int]:
    """(images in a round, rounds) that ``images`` allow."""
    size = min(len(items), LARGEST_ROUND) if policy.sequential else len(items)
    images = min([images, *(size * len(item.seeds) for item in items if item.seeds)])
    if images < size:
        raise PolicyError(
            f"budget.{key} is {images}, below one image of each prompt of {what} ({size} images); raise it."
        )
    return size, images // size
