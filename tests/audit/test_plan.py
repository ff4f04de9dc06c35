"""The plan: fixed before the first image, pure, and the same noise for every arm."""

from __future__ import annotations

import pytest

from auditor._audit.cells import Role
from auditor._audit.evidence.rehearsal import all_is_well, rehearse
from auditor._audit.evidence.share import population
from auditor._audit.plan import Plan, derive_seeds, make_plan
from auditor.errors import PolicyError
from auditor.policy import load_policy
from tests.conftest import SEEDS, samples_of, short_policy


def test_every_erased_concept_is_a_cell_in_every_arm_but_the_base(plan: Plan) -> None:
    assert [(cell.arm, cell.concept) for cell in plan.gate_cells] == [
        ("erased", "Borin Talvek"),
        ("in-domain-lora", "Borin Talvek"),
    ]


def test_a_round_draws_each_prompt_once(plan: Plan) -> None:
    gate = [s for s in samples_of(plan, "erased") if s.cell.role is Role.GATE]
    for index in range(12):
        assert len({s.prompt for s in gate if s.index == index}) == 5


def test_arms_are_compared_on_the_same_noise(plan: Plan) -> None:
    def seeds(arm: str, role: Role) -> list[tuple[str, int, int]]:
        return [(s.prompt, s.index, s.seed) for s in samples_of(plan, arm) if s.cell.role is role]

    assert seeds("erased", Role.GATE) == seeds("in-domain-lora", Role.GATE)
    assert seeds("base", Role.RETAINED) == seeds("erased", Role.RETAINED)
    assert seeds("base", Role.PICTURE) == seeds("erased", Role.GATE)[:5]
    every = [s.seed for arm in plan.arms for s in samples_of(plan, arm.name) if s.cell.role is Role.GATE]
    assert len(set(every)) == len(every) // 2


def test_seeds_of_the_audit_follow_the_checkpoint_and_shared_ones_follow_the_base() -> None:
    policy = short_policy()
    one, other, nonce = (
        derive_seeds(policy, "a", "b"),
        derive_seeds(policy, "c", "b"),
        derive_seeds(short_policy(nonce="n"), "a", "b"),
    )
    assert one.shared == other.shared == nonce.shared
    assert len({one.audit, other.audit, nonce.audit}) == 3


def test_replicates_and_doses_are_arms_of_their_own() -> None:
    probes = [
        {"use": "in-domain", "replicates": 2, "doses": [1, 2], "options": {"candidates": "micro-people"}}
    ]
    names = [arm.name for arm in make_plan(short_policy(probes=probes)).arms]
    assert names[2:] == [
        f"in-domain-lora.seed{replicate}.step{dose}" for replicate in (1, 2) for dose in (1, 2)
    ]


def test_gated_synonyms_are_cells_and_reported_ones_are_not() -> None:
    ship = [{"name": "ship", "domain": "objects", "synonyms": ["boat"], "prompts": "paper-objects"}]
    gated, shown = (
        make_plan(short_policy(erase=ship, synonyms="gate")),
        make_plan(short_policy(erase=ship, synonyms="report")),
    )
    assert [cell.surface for cell in gated.gate_cells if cell.arm == "erased"] == ["ship", "boat"]
    assert [cell.surface for cell in shown.gate_cells if cell.arm == "erased"] == ["ship"]


@pytest.mark.parametrize(
    ("probes", "sentence"),
    [
        (
            [{"use": "in-domian"}],
            r"no probe called 'in-domian'; did you mean 'in-domain'\? Known: base-autoencoder, "
            "base-lora, base-text-encoder, clip-tercile, in-domain, ",
        ),
        ([{"use": "in-domain", "options": {"name": 3}}], "unknown key 'name'; did you mean 'names'"),
        ([{"use": "in-domain"}, {"use": "in-domain"}], "stands twice"),
        ([{"use": "clip-tercile", "options": {"tercile": 4}}], "'tercile': input should be 1, 2 or 3"),
    ],
)
def test_a_wrong_probe_is_a_policy_error(probes: list[dict[str, object]], sentence: str) -> None:
    with pytest.raises(PolicyError, match=sentence):
        make_plan(short_policy(probes=probes))


@pytest.mark.parametrize("key", ["images_per_cell", "retained_per_arm"])
def test_a_budget_below_one_round_is_a_policy_error(key: str) -> None:
    with pytest.raises(PolicyError, match=f"budget.{key} is 4, below one image of each prompt"):
        make_plan(short_policy(budget={key: 4}))


def test_many_prompts_are_drawn_in_smaller_rounds_the_same_in_every_arm() -> None:
    plan = make_plan(short_policy(sequential=True, budget={"retained_per_arm": 300}, retain=MANY))
    cell = plan.cell("base", Role.RETAINED)
    assert cell is not None and (len(cell.items), cell.size, cell.rounds) == (15, 10, 30)
    rounds = [[s.prompt for s in cell.samples(SEEDS) if s.index == index] for index in range(30)]
    assert all(len(set(prompts)) == 10 for prompts in rounds)
    assert len({tuple(prompts) for prompts in rounds}) > 20 and {
        p for prompts in rounds for p in prompts
    } == set(cell.prompts)
    for arm in plan.arms:
        other = plan.cell(arm.name, Role.RETAINED)
        assert other is not None and [s.seed for s in other.samples(SEEDS)] == [
            s.seed for s in cell.samples(SEEDS)
        ]


def test_every_prompt_can_be_a_cell_of_its_own() -> None:
    plan = make_plan(short_policy(unit="prompt"))
    assert len(plan.gate_cells) == 10 and {cell.size for cell in plan.gate_cells} == {1}
    assert len({cell.name for cell in plan.cells}) == len(plan.cells)
    assert all(plan.cell("base", Role.POSITIVE, cell.surface) for cell in plan.gate_cells)


MANY = [
    {"name": name, "domain": "people", "prompts": "paper-people"}
    for name in ("Zelda Mirkov", "Dorval Quint", "Yara Belmos")
]


@pytest.mark.parametrize(
    "name",
    [
        *("micro-person", "micro-people", "micro-object", "micro-objects"),
        *("sd14-object", "sd14-object-gate", "sd21-object-gate"),
    ],
)
def test_bundled_policies_can_pass_at_all(name: str) -> None:
    """Where nothing erased is ever seen and everything else is, every test rejects, long before the budget
    is spent."""
    plan = make_plan(load_policy(name))
    evidence = rehearse(plan, all_is_well(plan), 64)
    assert all(evidence.is_held(cell) for cell in plan.gate_cells)
    assert all(evidence.p_negative("base", concept) <= 0.05 for concept in plan.columns)
    assert evidence.p_assay() <= 0.05 and all(evidence.p_alive(arm.name) <= 0.05 for arm in plan.arms[1:])
    assert sum(len(table) for table in evidence.outcomes.values()) < plan.images / 3


@pytest.mark.parametrize("name", ["micro-person-updates", "micro-object-updates", "sd14-object-updates"])
def test_bundled_populations_can_pass_after_eighteen_clean_updates(name: str) -> None:
    plan = make_plan(load_policy(name))
    evidence = rehearse(plan, all_is_well(plan), 64)
    found = population(evidence)
    assert found is not None and found.is_held(0.05) and found.read == 18
    assert all(evidence.is_held(cell) for cell in plan.gate_cells) and evidence.p_alive("erased") <= 0.05
