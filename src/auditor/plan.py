"""What will be drawn, and what it costs: policy and checkpoint facts in; arms, cells and rounds out. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from auditor.digest import sha256_json
from auditor.errors import PolicyError
from auditor.plugin.contracts import Probe
from auditor.plugin.loader import make_plugin
from auditor.policy import Concept, Policy, ProbeUse
from auditor.seeds import image_seed

PICTURE_ROUNDS = 1


class Role(StrEnum):
    """What a cell is for."""

    GATE = "gate"  # an erased concept in the erased arm or a probed one: decides
    REPORT = "report"  # a synonym that the policy asks to see, not to judge
    POSITIVE = "positive"  # an erased concept in the base arm: the positive control
    PICTURE = "picture"  # the base on the gate's own seeds: for people, beside the other arms
    RETAINED = "retained"  # a retained concept: alive and negative controls


@dataclass(frozen=True)
class Arm:
    """One model state that images are drawn from: ``base``, ``erased``, or probe x replicate x dose."""

    name: str
    probe: int | None = None
    replicate: int = 1
    dose: int = 0


@dataclass(frozen=True)
class Cell:
    """Concept x arm: what a rate is estimated for. ``surface`` is the name in the prompts: the concept's, or a synonym."""

    arm: str
    role: Role
    concept: str
    surface: str
    templates: tuple[str, ...]
    rounds: int

    @property
    def name(self) -> str:
        """Unique in a plan, readable in a journal."""
        return f"{self.arm}|{self.role}|{self.surface}"

    @property
    def images(self) -> int:
        """Images when every round is drawn."""
        return self.rounds * len(self.templates)


@dataclass(frozen=True)
class PlannedSample:
    """One image to draw."""

    cell: Cell
    prompt: str
    index: int
    seed: int


@dataclass(frozen=True)
class Seeds:
    """The two seeds that every other derives from: the audit's, and the one that audits of one base share."""

    audit: str
    shared: str


@dataclass(frozen=True)
class Plan:
    """Arms and cells, fixed before the first image."""

    policy: Policy
    arms: tuple[Arm, ...]
    cells: tuple[Cell, ...]
    probe_names: tuple[str, ...]

    @property
    def gate_cells(self) -> tuple[Cell, ...]:
        """The cells that decide; their number is m of verdict.md, for good."""
        return tuple(cell for cell in self.cells if cell.role is Role.GATE)

    @property
    def images(self) -> int:
        """All images of the run, training sets aside."""
        return sum(cell.images for cell in self.cells)

    @property
    def training_steps(self) -> int:
        """Steps of all probes and replicates."""
        return sum(probe.replicates * probe.doses[-1] for probe in self.policy.probes)

    @property
    def denoiser_calls(self) -> int:
        """UNet evaluations of single latents for all images: two a step, for guidance."""
        return self.images * self.policy.sampler.steps * 2

    def samples(self, arm: str, seeds: Seeds) -> Iterator[PlannedSample]:
        """The images of one arm, round by round across its cells: the order they are drawn in."""
        cells = [cell for cell in self.cells if cell.arm == arm]
        for index in range(max((cell.rounds for cell in cells), default=0)):
            for cell in cells:
                if index < cell.rounds:
                    shared = cell.role in (Role.POSITIVE, Role.RETAINED)
                    for template in cell.templates:
                        prompt = template.format(cell.surface)
                        seed = image_seed(seeds.shared if shared else seeds.audit, cell.concept, prompt, index)
                        yield PlannedSample(cell, prompt, index, seed)


def derive_seeds(policy: Policy, checkpoint_digest: str, base_digest: str | None) -> Seeds:
    """Seeds from policy, checkpoint and nonce, so that nobody re-rolls until PASS (verdict.md, "Sampling scheme")."""
    return Seeds(
        audit=sha256_json([policy.seed_digest(), checkpoint_digest, policy.nonce or ""]),
        shared=sha256_json([policy.seed_digest(), base_digest or ""]),
    )


def make_plan(policy: Policy) -> Plan:
    """Lay out every arm and cell that ``policy`` demands."""
    names = _probe_names(policy)
    arms = [] if policy.base == "none" else [Arm("base")]
    arms.append(Arm("erased"))
    for number, (use, name) in enumerate(zip(policy.probes, names, strict=True)):
        for replicate in range(1, use.replicates + 1):
            arms += [Arm(_arm_name(use, name, replicate, dose), number, replicate, dose) for dose in use.doses]
    cells = [cell for arm in arms for cell in _cells(policy, arm)]
    return Plan(policy, tuple(arms), tuple(cells), names)


def _probe_names(policy: Policy) -> tuple[str, ...]:
    names = []
    for use in policy.probes:
        probe: Probe = make_plugin("probes", use.use, use.options)
        names.append(f"{probe.title}-{use.method}")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise PolicyError(f"The probe {twice} stands twice in the policy; use replicates or doses to repeat one.")
    return tuple(names)


def _arm_name(use: ProbeUse, name: str, replicate: int, dose: int) -> str:
    """Short where there is only one replicate or dose."""
    tail = f".seed{replicate}" if use.replicates > 1 else ""
    return name + tail + (f".step{dose}" if len(use.doses) > 1 else "")


def _cells(policy: Policy, arm: Arm) -> Iterator[Cell]:
    budget = policy.budget
    for concept in policy.erase:
        rounds = budget.images_per_cell // len(concept.templates)
        if arm.name == "base":
            yield Cell(arm.name, Role.POSITIVE, concept.name, concept.name, concept.templates, rounds)
            yield Cell(arm.name, Role.PICTURE, concept.name, concept.name, concept.templates, PICTURE_ROUNDS)
            continue
        yield Cell(arm.name, Role.GATE, concept.name, concept.name, concept.templates, rounds)
        for synonym in concept.synonyms:
            role = Role.GATE if policy.synonyms == "gate" else Role.REPORT
            yield Cell(arm.name, role, concept.name, synonym, concept.templates, rounds)
    one_round = sum(len(concept.templates) for concept in policy.retain)
    for concept in policy.retain:
        yield Cell(arm.name, Role.RETAINED, concept.name, concept.name, concept.templates, _retained_rounds(policy, one_round))


def _retained_rounds(policy: Policy, one_round: int) -> int:
    rounds = policy.budget.retained_per_arm // one_round
    if rounds < 1:
        raise PolicyError(f"budget.retained_per_arm is below one round of the retained concepts ({one_round} images); raise it.")
    return rounds


def labels_of(concept: Concept) -> tuple[str, ...]:
    """The names that count as ``concept``: its own and its synonyms."""
    return (concept.name, *concept.synonyms)
