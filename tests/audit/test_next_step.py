"""What would decide an INCONCLUSIVE audit, and what no image decides; a larger budget in the same folder."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable

import pytest

from auditor._audit.cells import PlannedSample, Role
from auditor._audit.command import more_of
from auditor._audit.evidence.counts import tally
from auditor._audit.evidence.stopping import rounds_wanted, turns
from auditor._audit.plan import make_plan
from auditor._audit.run_folder.manifest import own_budget
from auditor._audit.verdict.assemble import report_of
from auditor._journal.lines import Line, StopLine
from auditor.errors import UsageError
from auditor.policy import Policy
from auditor.report import NextStep, Outcome, Report
from auditor.report.words import next_steps
from tests.conftest import FACTS, PROVENANCE, SEEDS, erased_well, journal_of, short_policy

COMMAND = "auditor audit --policy p.yaml --out run erased"
MANY = {"images_per_cell": 60, "retained_per_arm": 200}


def sequential(**changes: object) -> Policy:
    return short_policy(**{"sequential": True, "budget": MANY} | changes)


def judged(policy: Policy, lines: Callable[..., list[Line]] | None = None, **more: object) -> Report:
    plan = make_plan(policy)
    found = lines(plan) if lines else journal_of(plan, more.pop("hit", erased_well), **more)  # type: ignore[arg-type]
    provenance = PROVENANCE.model_copy(update={"command": COMMAND})
    counted = tally(plan, SEEDS, found)
    return report_of(plan, counted, title="x", checkpoint=FACTS, base=FACTS, provenance=provenance)


def step_of(report: Report) -> NextStep:
    assert report.verdict.outcome is Outcome.INCONCLUSIVE
    assert report.next_step is not None
    return report.next_step


def seen_in(every: int) -> Callable[[PlannedSample], bool]:
    """Of erased concepts one image in ``every``, in prompts' order; all else is as it should be."""

    def hit(planned: PlannedSample) -> bool:
        if planned.cell.role is not Role.GATE:
            return True
        place = planned.index * planned.cell.size + planned.cell.prompts.index(planned.prompt)
        return place % every == every - 1

    return hit


def test_a_pass_and_a_fail_need_no_next_step() -> None:
    assert judged(sequential()).verdict.outcome is Outcome.PASS
    assert judged(sequential()).next_step is None and not next_steps(judged(sequential()))
    failed = judged(sequential(), hit=lambda planned: True)
    assert failed.verdict.outcome is Outcome.FAIL and failed.next_step is None


def test_a_rate_that_is_nearly_low_enough_needs_images_and_says_how_many() -> None:
    step = step_of(judged(sequential(), hit=seen_in(40)))
    assert step.command is not None and step.p_pass is not None and step.p_fail is not None
    assert step.p_pass > 0.7 > 0.05 > step.p_fail
    words = shlex.split(step.command)
    assert words[:3] == ["auditor", "audit", "--images-per-cell"] and int(words[3]) > 60
    assert "--retained-per-arm" not in words and words[-3:] == ["--out", "run", "erased"]
    assert 0 < step.images < step.most_images and step.minutes is not None and not step.mend  # type: ignore[operator]


def test_a_rate_that_is_nearly_too_high_is_likely_to_fail() -> None:
    """Seen in one image of five: the odds are of FAIL, which needs retained images too."""
    step = step_of(
        judged(sequential(budget={"images_per_cell": 40, "retained_per_arm": 200}), hit=seen_in(5))
    )
    assert step.p_fail is not None and step.p_pass is not None and step.p_fail > 0.6 > 0.05 > step.p_pass


def test_the_proposed_budget_decides_as_often_as_it_says() -> None:
    """The command's own budget, drawn with a rate that fits what was seen, ends as it is likely to."""
    step = step_of(judged(sequential(), hit=seen_in(40)))
    assert step.command is not None
    images = int(shlex.split(step.command)[3])
    report = judged(sequential(budget=MANY | {"images_per_cell": images}), hit=seen_in(40))
    assert report.verdict.outcome is Outcome.PASS


def lost(every: int) -> Callable[[PlannedSample], bool]:
    def hit(planned: PlannedSample) -> bool:
        if planned.cell.role is Role.GATE:
            return False
        is_kept = planned.cell.role is not Role.RETAINED or planned.cell.arm == "base"
        return is_kept or planned.seed % every != 0

    return hit


def test_utility_that_is_nearly_shown_needs_retained_images() -> None:
    step = step_of(judged(sequential(), hit=lost(15)))
    assert step.command is not None and "--retained-per-arm" in step.command
    assert "--images-per-cell" not in step.command


NOTHING_DECIDES = {
    "no-op control": (
        {},
        {"edit": lambda line: line.model_copy(update={"different": 3}) if line.kind == "sham" else line},
        "plugin",
    ),
    "took effect": ({}, {"fit": (1.0, 1.02, 1.01)}, "training steps"),
    "utility": ({}, {"hit": lost(2)}, "erase more gently"),
    "sensitivity": ({}, {"hit": lambda planned: planned.cell.role is Role.RETAINED}, "sees the concept"),
    "base": ({"base": "none"}, {}, "--base"),
    "read once": ({"sequential": False}, {"hit": seen_in(20)}, "sequential: true"),
}


@pytest.mark.parametrize("case", NOTHING_DECIDES)
def test_where_no_image_decides_it_says_what_to_mend(case: str) -> None:
    changes, more, words = NOTHING_DECIDES[case]
    more = dict(more)
    edit = more.pop("edit", lambda line: line)
    plan = make_plan(sequential(**changes))
    lines = [edit(line) for line in journal_of(plan, more.pop("hit", erased_well), **more)]
    report = judged(sequential(**changes), lambda plan: lines)
    step = step_of(report)
    assert step.command is None and any(words in sentence for sentence in step.mend), step
    assert next_steps(report) == (step.sentence, *step.mend)


def test_a_pass_out_of_reach_does_not_hide_a_likely_fail() -> None:
    report = judged(
        sequential(budget={"images_per_cell": 40, "retained_per_arm": 200}),
        hit=seen_in(5),
        fit=(1.0, 1.02, 1.01),
    )
    step = step_of(report)
    assert step.command and step.mend and step.p_pass == 0 and step.p_fail and step.p_fail > 0.5


def test_a_rate_between_the_limits_is_said_to_be_there() -> None:
    """11 in 100 of very many: neither below 8 % nor above 14.5 % is ever likely to be shown."""
    step = step_of(
        judged(sequential(budget={"images_per_cell": 1500, "retained_per_arm": 200}), hit=seen_in(9))
    )
    assert step.command is None and "between" in step.sentence


def test_a_run_that_was_cut_off_goes_on_by_the_same_command() -> None:
    policy = sequential()
    cut = judged(policy, skip=lambda planned: planned.cell.arm not in ("base", "erased"))
    assert step_of(cut).command == COMMAND and step_of(cut).p_pass is None
    limited = sequential(budget=MANY | {"minutes": 2.0})

    def stopped(plan: object) -> list[Line]:
        lines = journal_of(plan, erased_well, skip=lambda planned: planned.cell.arm not in ("base", "erased"))  # type: ignore[arg-type]
        return [*lines, StopLine(reason="budget.minutes: 2 minutes were spent", seconds=0.0)]

    words = shlex.split(step_of(judged(limited, stopped)).command or "")
    assert int(words[words.index("--minutes") + 1]) > 2


def test_the_command_names_the_folder_where_it_is_at_hand(tmp_path: object) -> None:
    report = judged(sequential(), hit=seen_in(40))
    assert next_steps(report)[-1] == (step_of(report).command or "")
    assert f"--out {tmp_path}" in next_steps(report, tmp_path)[-1]  # type: ignore[arg-type]


def test_a_command_is_given_its_numbers_once() -> None:
    once = more_of("auditor audit --policy 'a b.yaml' --out run x", {"images_per_cell": 800})
    assert once == "auditor audit --images-per-cell 800 --policy 'a b.yaml' --out run x"
    again = more_of(once, {"images_per_cell": 1200, "minutes": 7.5})
    assert shlex.split(again).count("--images-per-cell") == 1 and "--minutes 7.5" in again


# -- a larger budget -----------------------------------------------------------------------------------------


def test_a_larger_budget_is_the_same_run_and_begins_with_the_same_images() -> None:
    policy = sequential()
    more = policy.with_budget(images_per_cell=300, retained_per_arm=400, minutes=None)
    assert more.identity() == policy.identity() and more.seed_digest() == policy.seed_digest()
    plans = make_plan(policy), make_plan(more, asked=policy)
    assert plans[1].policy_digest == plans[0].policy_digest == policy.digest() != more.digest()
    for few, many in zip(plans[0].cells, plans[1].cells, strict=True):
        assert few.name == many.name and few.size == many.size
        assert [s.seed for s in few.samples(SEEDS)] == [s.seed for s in many.samples(SEEDS)][: few.images]


@pytest.mark.parametrize("key", ["images_per_cell", "retained_per_arm", "minutes"])
def test_a_budget_can_only_be_raised(key: str) -> None:
    policy = sequential(budget=MANY | {"minutes": 30.0})
    with pytest.raises(UsageError, match=f"budget.{key} can only be raised"):
        policy.with_budget(**{key: 1})
    with pytest.raises(UsageError, match="no limit"):
        sequential().with_budget(minutes=5.0)


def test_where_checks_are_read_once_a_larger_budget_is_another_run() -> None:
    policy = short_policy()
    assert policy.with_budget(images_per_cell=600).identity() != policy.identity()
    assert policy.with_budget(images_per_cell=600).seed_digest() != policy.seed_digest()


# -- on_undecided --------------------------------------------------------------------------------------------


def test_old_policies_keep_their_digests() -> None:
    """Left out, or said as it would hold anyway, the key is in no digest."""
    policy = sequential()
    assert "on_undecided" not in policy.model_dump(mode="json") and "on_undecided" not in own_budget(policy)
    assert sequential(on_undecided="spend").digest() == policy.digest()
    closed = sequential(on_undecided="close")
    assert closed.digest() != policy.digest()
    assert closed.identity() == policy.identity() and closed.seed_digest() == policy.seed_digest()
    assert json.loads(closed.model_dump_json())["on_undecided"] == "close"


def wanted(policy: Policy, every: int) -> int:
    plan = make_plan(policy)
    evidence = tally(plan, SEEDS, journal_of(plan, seen_in(every), skip=_late)).evidence()
    cell = next(cell for cell in plan.gate_cells if cell.arm == "erased")
    return rounds_wanted(evidence, cell)


def _late(planned: PlannedSample) -> bool:
    return planned.cell.role is Role.GATE and planned.index >= 30


def test_a_check_is_not_closed_while_there_is_budget() -> None:
    budget = {"images_per_cell": 400, "retained_per_arm": 200}
    assert wanted(sequential(budget=budget), 9) > 0
    assert wanted(sequential(budget=budget, on_undecided="close"), 9) == 0


def test_a_check_above_the_fail_limit_is_never_closed() -> None:
    budget = {"images_per_cell": 400, "retained_per_arm": 200}
    plan = make_plan(sequential(budget=budget, on_undecided="close"))
    design = plan.design(plan.gate_cells[0])
    for rounds in range(1, design.rounds):
        n = rounds * design.size
        above = [hits for hits in range(n + 1) if hits > design.tau_fail * n]
        assert not any(design.hopeless(rounds, hits, hits) for hits in above)


def test_all_of_the_budget_is_planned_and_a_synonyms_is_not() -> None:
    budget = {"images_per_cell": 1000, "retained_per_arm": 200}
    erase = [{"name": "Borin Talvek", "synonyms": ["Borin"], "domain": "people", "prompts": "paper-people"}]
    plan = make_plan(sequential(budget=budget, erase=erase))
    by_role = {role: {c.images for c in plan.cells if c.role is role} for role in (Role.GATE, Role.REPORT)}
    assert by_role == {Role.GATE: {1000}, Role.REPORT: {10}}
    closed = make_plan(sequential(budget=budget, on_undecided="close"))
    (enough,) = {cell.images for cell in closed.gate_cells}
    assert enough < 400
    more = make_plan(sequential(budget=budget | {"images_per_synonym": 1000}, erase=erase))
    assert {cell.images for cell in more.cells if cell.role is Role.REPORT} == {enough}


def test_a_decided_check_asks_for_nothing_more_however_large_the_budget() -> None:
    plan = make_plan(sequential(budget={"images_per_cell": 1000, "retained_per_arm": 1000}))
    lines = journal_of(plan, erased_well, skip=lambda planned: planned.index >= 30)
    evidence = tally(plan, SEEDS, lines).evidence()
    assert all(not turns(evidence, arm.name) or arm.name == "base" for arm in plan.arms)
