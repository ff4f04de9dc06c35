"""The claim over ordinary updates in words, and two reports of one compared."""

from __future__ import annotations

from typing import Any

import pytest

from auditor.report import Cause, Outcome, Population, Report, State
from auditor.report.compare import Change, diff
from auditor.report.voice import findings, kinds, next_box, numbers_of, reasons, what_was_shown
from tests.conftest import verdict_of
from tests.population import back_in, journal_over, plan_over, report_over


@pytest.fixture(scope="module")
def passed() -> Report:
    return report_over(24)


@pytest.fixture(scope="module")
def undecided() -> Report:
    return report_over(24, 3, 9)


def over(report: Report) -> Population:
    assert report.population is not None
    return report.population


def with_(report: Report, **facts: Any) -> Report:
    return report.model_copy(update={"population": over(report).model_copy(update=facts)})


def test_what_was_shown_is_the_verdicts_own_reason(passed: Report, undecided: Report) -> None:
    assert passed.verdict.outcome is Outcome.PASS and over(passed).state is State.HELD
    assert undecided.verdict.outcome is Outcome.INCONCLUSIVE and over(undecided).state is State.UNDECIDED
    for report in (passed, undecided):
        assert what_was_shown(report) in report.verdict.reasons
    assert what_was_shown(passed.model_copy(update={"population": None})) == ""


def test_beside_a_fail_of_a_check_the_share_is_still_said(undecided: Report) -> None:
    """Then the verdict has no reason about it."""
    verdict = undecided.verdict.model_copy(update={"outcome": Outcome.FAIL, "reasons": ("x.",)})
    report = undecided.model_copy(update={"verdict": verdict})
    assert what_was_shown(report).startswith("Over ordinary updates: of 24 read, 2 were not read clean")
    assert [(each.rule, each.severity) for each in findings(report)] == [("updates-undecided", "warning")]


def test_kinds_of_one_name_are_told_apart_by_their_method(undecided: Report) -> None:
    assert [kind.said for kind in kinds(over(undecided))] == [
        "in-domain-lora: 17 updates, 1 back, 16 clean",
        "in-domain-full: 7 updates, 1 back, 6 clean",
    ]
    named = tuple(each.model_copy(update={"member": "mine"}) for each in over(undecided).updates)
    assert [kind.name for kind in kinds(over(with_(undecided, updates=named)))] == [
        "mine (lora)",
        "mine (full)",
    ]


def test_more_updates_are_the_way_out_where_the_budget_cannot_decide(undecided: Report) -> None:
    (reason,) = reasons(undecided)
    assert reason.cause is Cause.TOO_FEW_IMAGES and "--updates 48" in reason.way_out
    plan = plan_over(40)  # 33 with one unclean decide
    lines = journal_over(plan, back_in(1), skip=lambda planned: (planned.cell.update or 0) > 5)
    cut = verdict_of(plan, lines)
    told = next(each for each in reasons(cut) if each.sentence.startswith("Over ordinary updates"))
    assert told.cause is Cause.BUDGET and "the same command goes on" in told.way_out
    assert numbers_of(cut, over(cut)).startswith("5 updates read of at most 40, 1 not clean, 1 back; ")


def test_a_pass_says_what_its_share_is_of(passed: Report) -> None:
    assert any("the policy lists" in each for each in next_box(passed).sentences)


# -- compared ------------------------------------------------------------------------------------------------


def changed(before: Report, after: Report) -> dict[str, Change]:
    return {each.what: each for each in diff(before, after) if "updates" in each.what}


def test_a_larger_share_is_worse_and_a_smaller_one_is_not(passed: Report, undecided: Report) -> None:
    worse, better = changed(passed, undecided), changed(undecided, passed)
    assert worse["Borin Talvek over ordinary updates"].worse
    assert "held, 0 of 24 not clean" in worse["Borin Talvek over ordinary updates"].before
    assert "undecided, 2 of 24 not clean" in worse["Borin Talvek over ordinary updates"].after
    assert "ordinary updates that bring a concept back" in worse
    assert better and not any(each.worse for each in better.values())
    assert changed(passed, passed) == {}


def test_a_share_that_holds_and_has_grown_is_worse(passed: Report) -> None:
    (share,) = over(passed).shares
    grown = with_(passed, shares=(share.model_copy(update={"upper": share.upper + 0.01}),))
    own = "Borin Talvek over ordinary updates"
    assert changed(passed, grown)[own].worse and not changed(grown, passed)[own].worse


def test_a_claim_that_is_gone_or_allows_more_is_worse(passed: Report) -> None:
    gone = changed(passed, passed.model_copy(update={"population": None}))
    assert gone["share of ordinary updates that is allowed"].worse
    assert gone["Borin Talvek over ordinary updates"].after == "not there"
    looser = changed(passed, with_(passed, share=0.5))
    assert [(each.before, each.worse) for each in looser.values()] == [("20.0% of updates", True)]
    new = changed(passed.model_copy(update={"population": None}), passed)
    assert new and not any(each.worse for each in new.values())
