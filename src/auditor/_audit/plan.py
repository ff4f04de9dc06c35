"""What will be drawn, and what it costs: policy and checkpoint facts in; arms, cells and rounds out. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from auditor._audit.cells import LARGEST_ROUND, Arm, Cell, Item, Role, Seeds
from auditor._files.digest import sha256_json
from auditor._stats.design import Design, design, enough_images
from auditor.errors import PolicyError
from auditor.plugin.instruments import Contents, Instruments, make_probes, probe_names
from auditor.policy import Concept, Policy, ProbeUse


@dataclass(frozen=True)
class Plan:
    """Arms and cells, fixed before the first image."""

    policy: Policy
    arms: tuple[Arm, ...]
    cells: tuple[Cell, ...]
    probe_names: tuple[str, ...]
    contents: Contents = field(default_factory=dict)
    """Of what the policy's plugins decide by (:mod:`auditor.plugin.instruments`); empty where nothing is
    run."""

    @cached_property
    def gate_cells(self) -> tuple[Cell, ...]:
        """The cells that decide; their number is m of verdict.md, for good."""
        return tuple(cell for cell in self.cells if cell.role is Role.GATE)

    @property
    def has_base(self) -> bool:
        """Is the model before erasure there to compare with?"""
        return self.arms[0].name == "base"

    def is_last_dose(self, arm: Arm) -> bool:
        """Is this the highest dose of its probe and replicate: the one that must show that the update
        took?"""
        return arm.probe is not None and self.policy.probes[arm.probe].doses[-1] == arm.dose

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
        return sum(probe.replicates * probe.doses[-1] for probe in self.policy.probes)


def derive_seeds(policy: Policy, checkpoint: str, base: str | None) -> Seeds:
    """Seeds from policy, checkpoint and nonce, so that nobody re-rolls until PASS (verdict.md, "Sampling
    scheme").

    ``checkpoint`` and ``base`` are the digests of what is drawn with (``Checkpoint.drawn_digest``).
    """
    return Seeds(
        audit=sha256_json([policy.seed_digest(), checkpoint, base or "", policy.nonce or ""]),
        shared=sha256_json([policy.seed_digest(), base or ""]),
    )


def make_plan(policy: Policy, instruments: Instruments | None = None) -> Plan:
    """Lay out every arm and cell that ``policy`` demands.

    Without ``instruments`` its probes are made to be asked for their names, and nothing is known of what its
    plugins decide by.
    """
    if instruments is None:
        return lay_out(policy, probe_names(policy, make_probes(policy)), {})
    return lay_out(policy, probe_names(policy, instruments.probes), instruments.contents())


def lay_out(policy: Policy, names: tuple[str, ...], contents: Contents) -> Plan:
    """The same from what an earlier run noted of its plugins: ``names`` of the probes, and ``contents``."""
    arms = [] if policy.base == "none" else [Arm("base")]
    arms.append(Arm("erased"))
    for number, (use, name) in enumerate(zip(policy.probes, names, strict=True)):
        for replicate in range(1, use.replicates + 1):
            arms += [
                Arm(_arm_name(use, name, replicate, dose), number, replicate, dose) for dose in use.doses
            ]
    judged = len(arms) - (policy.base != "none")
    deciding = judged * sum(len(list(_surfaces(policy, concept, gate_only=True))) for concept in policy.erase)
    cells = [cell for arm in arms for cell in _cells(policy, arm, deciding)]
    cell_names = [cell.name for cell in cells]
    twice = next((name for name in cell_names if cell_names.count(name) > 1), None)
    if twice:
        raise PolicyError(
            f"Two concepts lead to the same check ({twice}): their prompts are the same text; change one."
        )
    return Plan(policy, tuple(arms), tuple(cells), names, contents)


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


def _surfaces(
    policy: Policy, concept: Concept, gate_only: bool = False
) -> Iterator[tuple[Role, str, tuple[Item, ...]]]:
    """(role, surface, items) of every cell that one erased concept has in each judged arm."""
    for name in (concept.name, *concept.synonyms):
        role = Role.GATE if name == concept.name or policy.synonyms == "gate" else Role.REPORT
        if gate_only and role is not Role.GATE:
            continue
        items = _items(concept, name)
        if policy.unit == "prompt":
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


def _cells(policy: Policy, arm: Arm, deciding: int) -> Iterator[Cell]:
    budget = policy.budget
    for concept in policy.erase:
        for role, surface, items in _surfaces(policy, concept):
            size, most = _rounds(policy, items, budget.images_per_cell, "images_per_cell", concept.name)
            if arm.name != "base":
                enough = images_that_suffice(policy, size, deciding) if policy.sequential else None
                yield Cell(
                    arm.name,
                    role,
                    concept.name,
                    surface,
                    items,
                    size,
                    min(most, (enough or most * size) // size),
                )
            elif role is Role.GATE:
                yield Cell(arm.name, Role.POSITIVE, concept.name, surface, items, size, most)
                yield Cell(arm.name, Role.PICTURE, concept.name, surface, items, size, 1)
    items = tuple(item for concept in policy.retain for item in _items(concept, concept.name))
    if items:
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
