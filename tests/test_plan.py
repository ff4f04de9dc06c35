"""The plan: fixed before the first image, pure, and the same noise for every arm."""

from __future__ import annotations

import pytest

from auditor.errors import PolicyError
from auditor.plan import Plan, Role, derive_seeds, make_plan
from auditor.policy import load_policy
from tests.conftest import SEEDS, short_policy


def test_every_erased_concept_is_a_cell_in_every_arm_but_the_base(plan: Plan) -> None:
    assert [(cell.arm, cell.concept) for cell in plan.gate_cells] == [("erased", "Borin Talvek"), ("in-domain-lora", "Borin Talvek")]


def test_a_round_draws_each_prompt_once(plan: Plan) -> None:
    gate = [s for s in plan.samples("erased", SEEDS) if s.cell.role is Role.GATE]
    for index in range(12):
        assert len({s.prompt for s in gate if s.index == index}) == 5


def test_arms_are_compared_on_the_same_noise(plan: Plan) -> None:
    def seeds(arm: str, role: Role) -> list[tuple[str, int, int]]:
        return [(s.prompt, s.index, s.seed) for s in plan.samples(arm, SEEDS) if s.cell.role is role]

    assert seeds("erased", Role.GATE) == seeds("in-domain-lora", Role.GATE)
    assert seeds("base", Role.RETAINED) == seeds("erased", Role.RETAINED)
    assert seeds("base", Role.PICTURE) == seeds("erased", Role.GATE)[:5]
    every = [s.seed for arm in plan.arms for s in plan.samples(arm.name, SEEDS) if s.cell.role is Role.GATE]
    assert len(set(every)) == len(every) // 2


def test_seeds_of_the_audit_follow_the_checkpoint_and_shared_ones_follow_the_base() -> None:
    policy = short_policy()
    one, other, nonce = derive_seeds(policy, "a", "b"), derive_seeds(policy, "c", "b"), derive_seeds(short_policy(nonce="n"), "a", "b")
    assert one.shared == other.shared == nonce.shared
    assert len({one.audit, other.audit, nonce.audit}) == 3


def test_replicates_and_doses_are_arms_of_their_own() -> None:
    probes = [{"use": "in-domain", "replicates": 2, "doses": [1, 2], "options": {"candidates": "micro-people"}}]
    names = [arm.name for arm in make_plan(short_policy(probes=probes)).arms]
    assert names[2:] == [f"in-domain-lora.seed{replicate}.step{dose}" for replicate in (1, 2) for dose in (1, 2)]


def test_gated_synonyms_are_cells_and_reported_ones_are_not() -> None:
    ship = [{"name": "ship", "domain": "objects", "synonyms": ["boat"], "prompts": "paper-objects"}]
    gated, shown = make_plan(short_policy(erase=ship, synonyms="gate")), make_plan(short_policy(erase=ship, synonyms="report"))
    assert [cell.surface for cell in gated.gate_cells if cell.arm == "erased"] == ["ship", "boat"]
    assert [cell.surface for cell in shown.gate_cells if cell.arm == "erased"] == ["ship"]


@pytest.mark.parametrize(
    ("probes", "sentence"),
    [
        ([{"use": "in-domian"}], "no probe called 'in-domian'; known: clip-tercile, in-domain, out-of-domain"),
        ([{"use": "in-domain", "options": {"name": 3}}], "unknown key 'name'; did you mean 'names'"),
        ([{"use": "in-domain"}, {"use": "in-domain"}], "stands twice"),
        ([{"use": "clip-tercile", "options": {"tercile": 4}}], "'tercile': input should be 1, 2 or 3"),
    ],
)
def test_a_wrong_probe_is_a_policy_error(probes: list[dict[str, object]], sentence: str) -> None:
    with pytest.raises(PolicyError, match=sentence):
        make_plan(short_policy(probes=probes))


def test_bundled_policies_can_pass_at_all() -> None:
    """Enough images that zero hits hold every cell and the controls can reject their nulls."""
    from auditor.stats import binomial, paired

    for name in ("micro-person", "micro-people", "micro-object", "micro-objects"):
        plan = make_plan(load_policy(name))
        limits = plan.policy.limits
        for cell in plan.gate_cells:
            assert binomial.largest_held(cell.images, plan.policy.thresholds[0], limits.alpha) is not None
        retained = sum(cell.images for cell in plan.cells if cell.arm == "base" and cell.role is Role.RETAINED)
        assert binomial.p_rate_above(0, retained, limits.max_false_positive) <= limits.alpha / len(plan.gate_cells)
        assert paired.p_drop_too_large(0, 0, retained, limits.max_retain_drop) <= limits.alpha
