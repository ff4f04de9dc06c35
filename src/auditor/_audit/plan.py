"""What will be drawn, and what it costs: policy and checkpoint facts in; arms, cells and rounds out. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

from auditor._audit.cells import BASE, ERASED, Arm, Cell, Role, Seeds, Weights
from auditor._audit.layout import Asked, arms_of_probe, arms_of_update, cells_of, cells_of_update
from auditor._audit.population import UPDATES, DrawnUpdate, draw_updates
from auditor._files.digest import sha256_json
from auditor._stats.design import Design, design
from auditor.errors import PolicyError
from auditor.plugin.instruments import Contents, Instruments, make_members, make_probes
from auditor.plugin.planned import PlannedProbe, planned_members, planned_probes
from auditor.policy import Policy, ProbeUse, Sampler


@dataclass(frozen=True)
class Plan:
    """Arms and cells, fixed before the first image."""

    policy: Policy
    arms: tuple[Arm, ...]
    cells: tuple[Cell, ...]
    probes: tuple[PlannedProbe, ...]
    """The policy's, then one for each update that was drawn."""
    contents: Contents = field(default_factory=dict)
    """Of what the policy's plugins decide by (:mod:`auditor.plugin.instruments`); empty where nothing is
    run."""
    asked: Policy | None = None
    """The policy as it was written, where a larger budget was given beside it; None: ``policy`` itself."""
    updates: tuple[DrawnUpdate, ...] = ()
    """Of the policy's population, in the order in which they were drawn and are read."""
    members: tuple[PlannedProbe, ...] = ()
    """Each kind of update in the population."""

    @cached_property
    def uses(self) -> tuple[ProbeUse, ...]:
        """How each of ``probes`` is used: the policy's, then the updates'."""
        return (*self.policy.probes, *(update.use for update in self.updates))

    @property
    def told(self) -> tuple[PlannedProbe, ...]:
        """What a manifest notes of probes: the policy's own, then each kind of update."""
        return (*self.probes[: len(self.policy.probes)], *self.members)

    def drawn_update(self, arm: Arm) -> DrawnUpdate:
        """The update that an arm is."""
        assert arm.update is not None
        return self.updates[arm.update - 1]

    def no_op_name(self, number: int) -> str:
        """What the no-op control of a probe is called: its name; of updates that of their kind."""
        if number < len(self.policy.probes):
            return self.probes[number].name
        member = self.updates[number - len(self.policy.probes)].member
        return f"{UPDATES}.{self.members[member].name}"

    @property
    def policy_digest(self) -> str:
        """The digest that is pinned and reported: of the policy as it was written."""
        return (self.asked or self.policy).digest(self.contents)

    @cached_property
    def gate_cells(self) -> tuple[Cell, ...]:
        """The cells that decide, each by itself."""
        return tuple(cell for cell in self.cells if cell.role is Role.GATE)

    @property
    def hypotheses(self) -> int:
        """m of verdict.md, for good: the cells that decide, and one for a population of updates."""
        return len(self.gate_cells) + (self.policy.updates is not None)

    @property
    def has_base(self) -> bool:
        """Is the model before erasure there to compare with?"""
        return self.arms[0].name == BASE

    @property
    def size(self) -> str:
        """How many model states, checks and updates there are, in words."""
        named = sum(arm.update is None for arm in self.arms)
        over = f", up to {len(self.updates)} updates" if self.updates else ""
        return f"{named} model states{over}, {len(self.gate_cells)} deciding checks"

    @property
    def probe_names(self) -> tuple[str, ...]:
        """What reports call the probes."""
        return tuple(probe.name for probe in self.probes)

    @property
    def named_training(self) -> tuple[tuple[int, ProbeUse, str], ...]:
        """The same of the policy's own probes alone."""
        return tuple(each for each in self.training if each[0] < len(self.policy.probes))

    @property
    def training(self) -> tuple[tuple[int, ProbeUse, str], ...]:
        """(number, use, name) of each probe that changes weights, updates of the population among them."""
        found = enumerate(zip(self.uses, self.probes, strict=True))
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
        return self.probes[arm.probe].kind != "weights" or self.uses[arm.probe].doses[-1] == arm.dose

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
        return _design(self.policy, cell.size, self.hypotheses, cell.images)

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
    probes = make_probes(policy) if instruments is None else instruments.probes
    members = make_members(policy) if instruments is None else instruments.members
    told = (*planned_probes(policy, probes), *planned_members(policy, members))
    return lay_out(policy, told, {} if instruments is None else instruments.contents(), asked)


def with_updates(plan: Plan, seeds: Seeds) -> Plan:
    """The plan with the updates that ``seeds`` draw."""
    return lay_out(plan.policy, plan.told, plan.contents, plan.asked, seeds.audit)


def lay_out(
    policy: Policy,
    told: tuple[PlannedProbe, ...],
    contents: Contents,
    asked: Policy | None = None,
    audit_seed: str = "",
) -> Plan:
    """The same from what an earlier run noted of its plugins: of its probes and kinds of update, and their
    ``contents``. ``audit_seed`` draws the updates; without it the plan is one of those that may be drawn."""
    named, members = told[: len(policy.probes)], told[len(policy.probes) :]
    updates = draw_updates(policy, audit_seed)
    probes = (
        *named,
        *(members[each.member].model_copy(update={"name": each.name}) for each in updates),
    )
    has_base = policy.base != "none"
    arms = [Arm(BASE, Weights.BASE)] if has_base else []
    arms.append(Arm(ERASED, Weights.ERASED))
    for number, (use, probe) in enumerate(zip(policy.probes, named, strict=True)):
        arms += arms_of_probe(number, use, probe, has_base=has_base)
    prompts = {arm.name: Asked(policy, None if arm.probe is None else probes[arm.probe]) for arm in arms}
    deciding = sum(prompts[arm.name].deciding for arm in arms if arm.is_judged)
    deciding += policy.updates is not None
    cells = [cell for arm in arms for cell in cells_of(policy, arm, prompts[arm.name], deciding)]
    for number, update in enumerate(updates, start=len(named)):
        own = arms_of_update(number, update)
        arms += own
        cells += cells_of_update(policy, update, own)
    cell_names = [cell.name for cell in cells]
    twice = next((name for name, times in Counter(cell_names).items() if times > 1), None)
    if twice:
        raise PolicyError(
            f"Two concepts lead to the same check ({twice}): their prompts are the same text; change one."
        )
    return Plan(policy, tuple(arms), tuple(cells), probes, contents, asked, updates, members)


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
