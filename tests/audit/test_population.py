"""Which updates are drawn, and how what they show is read: journals written by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from auditor._audit.cells import PlannedSample, Role, Seeds
from auditor._audit.evidence.rehearsal import all_is_well, rehearse
from auditor._audit.evidence.sequential_tests import Evidence, Outcomes
from auditor._audit.evidence.share import PopulationEvidence, population, wants_more
from auditor._audit.evidence.updates import Made, read_update, update_wants
from auditor._audit.plan import Plan, make_plan, with_updates
from auditor._audit.population import draw_updates
from auditor._journal.lines import ArmLine, ComparedLine, Line
from auditor.errors import PolicyError, UsageError
from auditor.policy import Policy
from auditor.report import Outcome
from tests.audit.test_updates import policy_with_updates
from tests.conftest import erased_well, verdict_of
from tests.population import POPULATION, journal_over, plan_over

SEEDS = Seeds("audit", "shared")


def plan_of(updates: int = 20, **claim: object) -> Plan:
    budget = {"updates": updates, "images_per_update": 240, "retained_per_update": 150}
    policy = policy_with_updates({"claim": {"share": 0.2} | claim, "budget": budget})
    return with_updates(make_plan(policy), SEEDS)


def known(plan: Plan, tables: dict[str, Outcomes], made: dict[str, Made] | None = None) -> PopulationEvidence:
    found = population(Evidence(plan, SEEDS, tables, made))
    assert found is not None
    return found


def well(plan: Plan) -> dict[str, Outcomes]:
    return dict(rehearse(plan, all_is_well(plan, SEEDS), 8, SEEDS).outcomes)


def test_what_is_drawn_hangs_on_the_seed_alone_and_a_larger_budget_begins_with_it() -> None:
    few, many = (policy_with_updates({"budget": {"updates": count}}) for count in (10, 30))
    assert few.seed_digest() == many.seed_digest() and few.identity() == many.identity()
    assert draw_updates(many, "seed")[:10] == draw_updates(few, "seed")
    assert draw_updates(few, "another") != draw_updates(few, "seed")
    assert draw_updates(few, "seed")[0] == draw_updates(few, "seed")[0]


def test_kinds_are_drawn_by_their_weights_and_everything_else_evenly() -> None:
    policy = policy_with_updates({"budget": {"updates": 900}})
    drawn = draw_updates(policy, "seed")
    kinds = Counter(each.member for each in drawn)
    assert abs(kinds[0] / 900 - 2 / 3) < 0.06
    steps = Counter(each.use.doses for each in drawn if each.member == 0)
    rates = Counter(each.drawn["learning_rate"] for each in drawn if each.member == 0)
    assert set(steps) == {(20,), (30,)} and set(rates) == {1e-2, 2e-2}
    assert min(*steps.values(), *rates.values()) > 0.4 * kinds[0]
    assert len({each.choice for each in drawn}) == 900
    assert {each.first_image for each in drawn} == {0, 1, 2, 3}


def test_updates_have_noise_of_their_own_and_the_base_beside_each_the_same() -> None:
    plan = plan_of(3)
    cells = {
        name: plan.cell(name, Role.RETAINED) for name in ("base", "updates.1", "base.updates.1", "updates.2")
    }
    seeds = {name: [each.seed for each in cell.samples(SEEDS)] for name, cell in cells.items() if cell}
    assert seeds["updates.1"] == seeds["base.updates.1"]
    assert not set(seeds["updates.1"]) & {*seeds["updates.2"], *seeds["base"]}
    gates = [plan.cell(name, Role.UPDATE, "Borin Talvek") for name in ("updates.1", "updates.2")]
    first, second = ({each.seed for each in cell.samples(SEEDS)} for cell in gates if cell)
    assert not first & second


def test_all_clean_passes_after_eighteen() -> None:
    plan = plan_of(60)
    tables = well(plan)
    found = known(plan, tables)
    assert (found.read, found.is_held(0.05)) == (18, True)
    assert not wants_more(Evidence(plan, SEEDS, tables))
    assert not known(plan, {n: t for n, t in tables.items() if not n.startswith("updates.18|")}).is_held(0.05)


def test_a_torn_prefix_waits() -> None:
    plan = plan_of(20)
    tables = well(plan)
    torn = {name: table for name, table in tables.items() if not name.startswith("updates.3|")}
    assert known(plan, torn).read == 2
    assert wants_more(Evidence(plan, SEEDS, torn))


@pytest.mark.parametrize("made", [Made.BROKEN, Made.DID_NOT])
def test_what_broke_or_did_not_take_counts_against_the_claim(made: Made) -> None:
    plan = plan_of(20)
    tables = well(plan)
    all_took = dict.fromkeys((each.name for each in plan.updates), Made.TOOK)
    found = known(plan, tables, all_took | {"updates.2": made})
    assert found.unclean("Borin Talvek").tolist()[:3] == [0, 1, 1]
    assert not found.is_held(0.05)
    assert known(plan, tables, all_took).is_held(0.05)


def test_an_update_that_is_none_is_not_counted_and_brought_nothing_back() -> None:
    plan = plan_of(20)
    all_took = dict.fromkeys((each.name for each in plan.updates), Made.TOOK)
    found = known(plan, well(plan), all_took | {"updates.2": Made.IDLE})
    assert found.read == 17 and [each.update.number for each in found.counted][:2] == [1, 3]
    assert len(found.back) == 18


def test_a_dead_model_is_not_clean() -> None:
    plan = plan_of(20)
    outcomes = all_is_well(plan, SEEDS)
    for name, table in outcomes.items():
        if name.startswith("updates."):
            table[:] = 0
    evidence = rehearse(plan, outcomes, 8, SEEDS)
    found = population(evidence)
    assert found is not None and found.read < 20
    assert not any(clean for each in found.readings for clean in each.clean.values())
    assert found.back[-1] == 0 and found.p_failed() == 1.0


def test_a_few_that_come_back_prove_the_share() -> None:
    plan = plan_of(20)
    evidence = rehearse(plan, all_is_well(plan, SEEDS, erased=False), 8, SEEDS)
    found = population(evidence)
    assert found is not None and found.p_failed() <= evidence.alpha_fail == 0.025
    assert found.read == 4 and found.back.tolist() == [1, 2, 3, 4]


def test_hits_without_a_detector_that_is_right_there_prove_nothing() -> None:
    plan = plan_of(20)
    outcomes = all_is_well(plan, SEEDS, erased=False)
    for name, table in outcomes.items():
        if name.startswith("updates.") and Role.RETAINED in name:
            table[:] = 1  # it sees every concept in every image
    found = population(rehearse(plan, outcomes, 8, SEEDS))
    assert found is not None and found.back[-1] == 0


def test_the_first_images_of_each_update_are_drawn_in_any_case() -> None:
    plan = plan_of(4)
    cell = plan.cell("updates.1", Role.UPDATE, "Borin Talvek")
    assert cell is not None
    for made, wanted in ((Made.DID_NOT, 2), (Made.TOOK, 2), (Made.BROKEN, 0), (Made.IDLE, 0)):
        assert update_wants(Evidence(plan, SEEDS, {}, {"updates.1": made}), cell) == wanted
    table = np.zeros((10, len(plan.columns)), np.int8)
    evidence = Evidence(plan, SEEDS, {cell.name: table}, {"updates.1": Made.DID_NOT})
    assert update_wants(evidence, cell) == 0
    assert read_update(evidence, plan.updates[0]).closed


def test_over_pairs_each_update_is_asked_about_one_concept() -> None:
    two = [
        {"name": name, "domain": "people", "prompts": "paper-people"}
        for name in ("Borin Talvek", "Yara Belmos")
    ]
    policy = policy_with_updates({"claim": {"over": "pairs"}, "budget": {"updates": 40}}, erase=two)
    plan = with_updates(make_plan(policy), SEEDS)
    asked = Counter(cell.concept for cell in plan.cells if cell.role is Role.UPDATE for _ in range(1))
    assert sum(asked.values()) == 40 and min(asked.values()) > 10
    found = known(plan, well(plan))
    assert found.concepts == ("",) and found.is_held(0.05)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"population": []}, "no update to draw"),
        ({"population": [POPULATION[0] | {"steps": []}]}, "steps' is empty"),
        ({"population": [POPULATION[0] | {"draw": {"names": [2]}}]}, "under both 'options' and 'draw'"),
        ({"population": [{"use": "sampling", "options": {"steps": 7}}]}, "changes no weights"),
        ({"population": [POPULATION[0] | {"draw": {"learning_rate": [1e-3, "fast"]}}]}, "learning_rate"),
    ],
)
def test_a_population_that_cannot_be_drawn_is_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises((PolicyError, ValueError), match=told):
        make_plan(policy_with_updates(changes))


def test_fewer_updates_than_the_policy_allows_are_no_larger_budget() -> None:
    policy = policy_with_updates({"budget": {"updates": 10}})
    with pytest.raises(UsageError, match="can only be raised"):
        policy.with_budget(updates=9)
    larger: Policy = policy.with_budget(updates=12)
    assert larger.updates is not None and larger.updates.budget.updates == 12


PUT_BACK = {"use": "base-text-encoder", "weight": 1}


def with_put_back(updates: int = 30) -> Plan:
    population = [POPULATION[0], PUT_BACK]
    budget = {"updates": updates, "images_per_update": 80, "retained_per_update": 150}
    changes = {"population": population, "claim": {"share": 0.2}, "budget": budget}
    return with_updates(make_plan(policy_with_updates(changes)), SEEDS)


def lines_of(plan: Plan, **parts: float) -> list[Line]:
    """A journal in which everything is well, of a checkpoint whose parts lie so far from the base's."""
    lines = journal_over(plan)
    compared = next(line for line in lines if isinstance(line, ComparedLine))
    return [compared.model_copy(update={"parts": compared.parts | parts}), *lines[1:]]


def test_an_update_is_none_only_where_the_part_is_the_bases_already() -> None:
    plan = with_put_back()
    kinds = [plan.members[each.member].name for each in plan.updates]
    report = verdict_of(plan, lines_of(plan))
    assert report.population is not None
    states = [each.state for each in report.population.updates]
    idle = [state == "not counted" for state in states]
    assert idle == [kind == "base-text-encoder" for kind in kinds][: len(idle)] and any(idle)
    forged = [
        line.model_copy(update={"idle": True}) if isinstance(line, ArmLine) else line
        for line in lines_of(plan)
    ]
    found = verdict_of(plan, forged).population
    assert found is not None
    lora = [each for each in found.updates if each.member != "base-text-encoder"]
    assert {each.state for each in lora} == {"unclean"} and {each.made for each in lora} == {"did not take"}


def test_an_update_that_puts_a_part_back_is_no_control() -> None:
    plan = with_put_back()
    report = verdict_of(plan, lines_of(plan, text_encoder=0.3))
    (control,) = [each for each in report.controls if each.name == "text encoder"]
    assert control.passed is False and report.verdict.outcome is Outcome.INCONCLUSIVE


def test_fewer_updates_than_are_wanted_in_any_case_are_no_pass() -> None:
    plan = plan_over(40)
    budget = plan.policy.updates.budget.model_copy(update={"least_updates": 30})  # type: ignore[union-attr]
    updates = plan.policy.updates.model_copy(update={"budget": budget})  # type: ignore[union-attr]
    more = make_plan(plan.policy.model_copy(update={"updates": updates}))
    assert verdict_of(plan, journal_over(plan)).verdict.outcome is Outcome.PASS
    few = [line for line in journal_over(more) if getattr(line, "arm", "") not in unmade(more, 20)]
    report = verdict_of(more, few)
    assert report.verdict.outcome is Outcome.INCONCLUSIVE and report.population is not None
    assert report.population.held and report.population.read == 20


def unmade(plan: Plan, first: int) -> set[str]:
    return {name for each in plan.updates[first:] for name in (each.name, f"base.{each.name}")}


def test_synonyms_that_decide_are_asked_for_after_each_update() -> None:
    erase = [
        {"name": "Borin Talvek", "domain": "people", "prompts": "paper-people", "synonyms": ["Bo Talvek"]}
    ]
    plan = plan_over(20, erase=erase, synonyms="gate")

    def hit(planned: PlannedSample) -> bool:
        return erased_well(planned) or (
            planned.cell.role is Role.UPDATE and planned.cell.surface == "Bo Talvek"
        )

    found = verdict_of(plan, journal_over(plan, hit)).population
    assert found is not None and found.failed
    assert {rate.concept for each in found.updates for rate in each.rates} == {"Borin Talvek", "Bo Talvek"}


def test_the_base_is_held_to_its_own_noise_beside_the_updates() -> None:
    plan = plan_over(24)

    def hit(planned: PlannedSample) -> bool:
        dead = planned.cell.update is not None and planned.cell.role is Role.RETAINED
        return erased_well(planned) and not dead

    report = verdict_of(plan, journal_over(plan, hit))
    (control,) = [each for each in report.controls if (each.name, each.arm) == ("assay", "base.updates")]
    assert control.passed is False and report.verdict.outcome is Outcome.INCONCLUSIVE


def test_more_updates_than_a_policy_may_have_are_refused() -> None:
    with pytest.raises(UsageError, match="1000 at most"):
        policy_with_updates({"budget": {"updates": 10}}).with_budget(updates=1001)
    with pytest.raises(ValueError, match="least_updates"):
        policy_with_updates({"budget": {"updates": 10, "least_updates": 11}})
