"""One voice for a verdict: the strongest finding, why, and what to do next, the same in every form."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from auditor._audit.cells import PlannedSample, Role
from auditor._audit.evidence.counts import tally
from auditor._audit.plan import Plan, make_plan
from auditor._audit.verdict.assemble import report_of
from auditor._cli.terminal import show_report
from auditor._journal.lines import ErrorLine, Line, StopLine
from auditor.plugin._loader import make_plugin
from auditor.report import Cause, Outcome, Report, State
from auditor.report.voice import (
    ABOVE_THE_FOLD,
    HELP,
    RULES,
    causes,
    folded,
    headline,
    next_box,
    notes,
    reasons,
    said_of,
    strongest,
)
from auditor.report.words import (
    DOCS,
    MEANINGS,
    NO_PROMISE,
    certainty,
    explained,
    gate_cells,
    published,
    published_command,
)
from tests.conftest import (
    FACTS,
    PROVENANCE,
    SEEDS,
    erased_well,
    journal_of,
    short_policy,
    verdict_of,
)

ARM = "in-domain-lora"
COMMAND = "auditor audit --policy p.yaml --out run erased"
SOME = {"images_per_cell": 70, "retained_per_arm": 200}
PROBE = short_policy().model_dump(mode="json")["probes"][0]
SIX = [PROBE | {"doses": [3, 6], "replicates": 3}]


def sequential(**changes: object) -> Plan:
    return make_plan(short_policy(sequential=True, budget=SOME, **changes))


def judged(plan: Plan, lines: list[Line], **more: Any) -> Report:
    provenance = PROVENANCE.model_copy(update={"command": COMMAND, "seconds": 90.0})
    facts = {"title": "x", "checkpoint": FACTS, "base": FACTS, "provenance": provenance}
    return report_of(plan, tally(plan, SEEDS, lines), **facts | more)


def seen(every: int, arm: str = ARM) -> Callable[[PlannedSample], bool]:
    """The concept is in one of so many images after ``arm``, and in none before."""

    def hit(planned: PlannedSample) -> bool:
        there = planned.cell.role is Role.GATE and planned.cell.arm == arm and planned.index % every == 1
        return erased_well(planned) or there

    return hit


def lost(every: int) -> Callable[[PlannedSample], bool]:
    """One of so many retained images is lost in every model state but the base."""

    def hit(planned: PlannedSample) -> bool:
        gone = planned.cell.role is Role.RETAINED and planned.cell.arm != "base"
        return erased_well(planned) and not (gone and planned.index % every == 1)

    return hit


def blind(planned: PlannedSample) -> bool:
    """The base's images do not show the concept to the detector."""
    return planned.cell.role is Role.RETAINED


def cut_off(plan: Plan, hit: Callable[[PlannedSample], bool]) -> list[Line]:
    """The minutes were over before anything was drawn after the probe."""
    lines = journal_of(plan, hit, skip=lambda planned: planned.cell.arm == ARM)
    return [*lines, StopLine(reason="budget.minutes: 2 minutes were spent", seconds=0.0)]


# -- the headline --------------------------------------------------------------------------------------------


def test_a_fail_says_where_how_often_and_by_what_bound(plan: Plan) -> None:
    report = judged(plan, journal_of(plan, seen(2)))
    assert headline(report) == (
        "Came back: Borin Talvek is drawn after in-domain-lora in 30 of 60 images (50%), 0 of 60 right after "
        "erasure; with 95% certainty that is at least 38.7%, and the limit is 14.5%."
    )
    report = judged(plan, journal_of(plan, lambda planned: True))
    assert headline(report).startswith("Not erased: Borin Talvek is drawn right after erasure, in 60 of 60 ")


def test_what_was_seen_and_not_proven_is_the_headline_and_no_pass() -> None:
    plan = sequential(limits={"tau": 0.05, "max_false_positive": 0.02})
    report = judged(plan, journal_of(plan, seen(9)))
    assert report.verdict.outcome is Outcome.INCONCLUSIVE
    said = headline(report)
    assert said.startswith(
        "Borin Talvek came back after in-domain-lora in 10 of 70 images (14%), 0 of 70 right"
    )
    assert "too few images to prove it above the limit of 6.9%" in said and said.endswith("This is no PASS.")


def test_where_nothing_was_seen_the_headline_says_what_is_missing() -> None:
    plan = make_plan(short_policy(sequential=True, budget={"images_per_cell": 20, "retained_per_arm": 200}))
    report = judged(plan, journal_of(plan, erased_well))
    assert headline(report) == (
        "No erased concept was seen in 40 images, in 2 of 2 checks; but too few images to prove every rate "
        "below 8.0%. This is no PASS."
    )


def test_a_pass_keeps_its_careful_words_and_its_highest_rate(plan: Plan) -> None:
    said = headline(judged(plan, journal_of(plan, erased_well)))
    assert said.startswith(MEANINGS[Outcome.PASS])
    assert "0 of 60 images (0%); with 95% certainty that is at most 4.9%, and the limit is 8.0%" in said


def test_an_error_names_what_broke(plan: Plan) -> None:
    lines = [*journal_of(plan, erased_well), ErrorLine(arm=ARM, message="Memory ran out.")]
    report = judged(plan, lines)
    assert headline(report).startswith(f"Something that was planned broke: {ARM}: Memory ran out.")
    assert reasons(report)[0].sentence == f"{ARM}: Memory ran out."


def test_a_single_hit_below_the_limit_is_not_called_back() -> None:
    plan = make_plan(short_policy(sequential=True, budget={"images_per_cell": 40, "retained_per_arm": 200}))

    def once(planned: PlannedSample) -> bool:
        return erased_well(planned) or (seen(8)(planned) and planned.prompt == planned.cell.prompts[0])

    report = judged(plan, journal_of(plan, once))
    assert report.verdict.outcome is Outcome.INCONCLUSIVE
    assert headline(report).startswith(
        "Borin Talvek was seen after in-domain-lora in 1 of 40 images (2%), 0 of"
    )


def test_of_several_failed_checks_the_one_with_the_highest_rate_leads() -> None:
    plan = make_plan(short_policy(probes=SIX))
    arms = [arm.name for arm in plan.arms if arm.probe is not None]

    def hit(planned: PlannedSample) -> bool:
        return erased_well(planned) or seen(2, arms[1])(planned) or seen(1, arms[4])(planned)

    def every(planned: PlannedSample) -> bool:
        return hit(planned) or (planned.cell.role is Role.GATE and planned.cell.arm == arms[4])

    worst = strongest(judged(plan, journal_of(plan, every)))
    assert worst is not None and worst.arm == arms[4] and worst.hits == 60


# -- reasons -------------------------------------------------------------------------------------------------


def test_one_cause_that_holds_for_six_model_states_is_one_reason_that_names_them() -> None:
    plan = make_plan(short_policy(sequential=True, budget=SOME, probes=SIX))
    report = judged(plan, journal_of(plan, erased_well, fit=(1.0, 1.02, 1.01)))
    own = [reason for reason in reasons(report) if "'took effect'" in reason.sentence]
    assert len(own) == 1 and own[0].cause is Cause.CONTROL and "training steps" in own[0].way_out
    asked = [c.arm for c in report.controls if c.name == "potent" and c.passed is False]
    assert len(asked) > 1 and all(arm in own[0].sentence for arm in asked)


def test_at_most_three_stand_above_the_fold() -> None:
    plan = make_plan(short_policy(sequential=True, budget={"images_per_cell": 20, "retained_per_arm": 20}))
    lines = journal_of(plan, lost(3), fit=(1.0, 1.02, 1.01))
    report = judged(plan, lines)
    shown, more = folded(report)
    assert len(shown) == ABOVE_THE_FOLD and more == len(reasons(report)) - 3 > 0


def test_the_bound_that_decided_stands_in_the_sentence() -> None:
    plan = sequential()
    report = judged(plan, journal_of(plan, lost(20)))
    control = next(c for c in report.controls if c.name == "alive" and c.arm == "erased")
    (reason,) = (r for r in reasons(report) if "'utility'" in r.sentence)
    assert control.passed is False and control.value is not None and control.value < control.limit
    assert control.bound is not None and control.bound > control.limit
    assert f"with 95% certainty at most {control.bound:.1%} (limit 10%)" in reason.sentence
    assert reason.cause is Cause.TOO_FEW_IMAGES
    assert re.match(r"up to \d+ more retained images of each model state decide it", reason.way_out)


@pytest.mark.parametrize("every", [None, 2, 3, 5, 8, 13, 20, 40])
@pytest.mark.parametrize("in_sequence", [True, False])
def test_no_sentence_contradicts_its_verdict(every: int | None, in_sequence: bool) -> None:
    """Controls and checks pass exactly where the bound that is told lies on the right side of the limit."""
    plan = make_plan(short_policy(sequential=in_sequence, budget=SOME))
    rows = [lost(every), seen(every)] if every else [erased_well]
    for hit in rows:
        report = judged(plan, journal_of(plan, hit))
        bounded = [c for c in report.controls if c.bound is not None]
        assert {"negative", "positive", "assay", "alive"} <= {c.name for c in bounded}
        for control in bounded:
            below = control.name in ("negative", "alive")
            right = control.bound < control.limit if below else control.bound > control.limit
            assert control.passed == right, control
        low, high = 0.08, 0.145
        for cell in gate_cells(report):
            told = [
                float(number) / 100
                for number in re.findall(r"at (?:least|most) ([\d.]+)%", said_of(report, cell))
            ]
            if cell.state is State.HELD:
                assert told[0] <= low
            elif cell.state is State.FAILED:
                assert told[0] >= high
            else:
                rate = cell.hits / cell.images
                assert told[0] <= high if rate > high else told[-1] >= low, said_of(report, cell)


def test_a_proven_check_says_that_the_detector_is_right_there(plan: Plan) -> None:
    report = judged(plan, journal_of(plan, seen(2)))
    assert [reason.sentence.split(":")[0] for reason in reasons(report)[:1]] == [
        "Borin Talvek after in-domain-lora"
    ]
    assert "The detector is shown to be rarely wrong there (in-domain-lora)" in reasons(report)[1].sentence


# -- causes --------------------------------------------------------------------------------------------------


def cases() -> Iterator[tuple[Cause, Callable[[], Report]]]:
    short = {"images_per_cell": 20, "retained_per_arm": 200}
    few = make_plan(short_policy(sequential=True, budget=short))
    plan = sequential()
    yield Cause.TOO_FEW_IMAGES, lambda: judged(few, journal_of(few, erased_well))
    yield Cause.TOO_FEW_IMAGES, lambda: judged(plan, journal_of(plan, lost(20)))
    yield Cause.CONTROL, lambda: judged(plan, journal_of(plan, erased_well, fit=(1.0, 1.02, 1.01)))
    yield Cause.CONTROL, lambda: judged(plan, journal_of(plan, lost(2)))
    yield Cause.BLIND, lambda: judged(plan, journal_of(plan, blind))
    yield Cause.BLIND, lambda: _without_a_base()
    yield Cause.BUDGET, lambda: judged(plan, cut_off(plan, erased_well))
    whole = make_plan(short_policy(sequential=True))
    yield (
        Cause.NOT_ONE_EVIDENCE,
        lambda: judged(whole, journal_of(whole, erased_well), exploratory="Exploratory: judged by another."),
    )


def _without_a_base() -> Report:
    plan = make_plan(short_policy(sequential=True, base="none"))
    return judged(plan, journal_of(plan, erased_well), base=None)


@pytest.mark.parametrize("number", range(len(list(cases()))))
def test_every_cause_has_its_name_its_way_out_and_its_place_in_the_documentation(number: int) -> None:
    cause, make = list(cases())[number]
    report = make()
    assert report.verdict.outcome is Outcome.INCONCLUSIVE
    assert len(report.verdict.causes) == len(report.verdict.reasons)
    assert causes(report)[0] is cause, (causes(report), report.verdict.reasons)
    assert reasons(report)[0].cause is cause and reasons(report)[0].way_out
    assert next_box(report).link == f"{DOCS}/inconclusive.html#{cause.value}"
    assert next_box(report).sentences


def test_the_names_of_causes_stay() -> None:
    assert {each.value for each in Cause} == {
        "too-few-images",
        "control",
        "blind",
        "budget",
        "not-one-evidence",
    }


def test_an_older_report_without_causes_is_explained_too() -> None:
    for cause, make in list(cases())[:-1]:
        report = make()
        older = report.model_copy(update={"verdict": report.verdict.model_copy(update={"causes": ()})})
        assert causes(older)[0] is cause, report.verdict.reasons
    kept = Path(__file__).parents[1] / "builtins" / "reporters" / "kept" / "report-1.json"
    older = Report.model_validate_json(kept.read_text(encoding="utf-8"))
    assert causes(older) == (Cause.CONTROL, Cause.TOO_FEW_IMAGES) and next_box(older).command


def test_other_verdicts_have_no_cause(plan: Plan) -> None:
    for hit in (erased_well, lambda planned: True):
        report = judged(plan, journal_of(plan, hit))
        assert report.verdict.causes == () == causes(report)


# -- what to do next -----------------------------------------------------------------------------------------


def test_a_pass_says_what_it_does_not_mean_and_what_was_weaker(plan: Plan) -> None:
    lines = journal_of(plan, erased_well)
    box = next_box(judged(plan, lines, weaker=("limits.tau is 0.3 instead of 0.1",)))
    assert any(NO_PROMISE[1:] in sentence for sentence in box.sentences)
    assert any("limits.tau is 0.3" in sentence for sentence in box.sentences)
    assert box.command == "auditor report render run --format model-card"
    assert any("weaker than the defaults" in each for each in next_box(judged(plan, lines)).sentences)


def test_a_fail_says_what_to_audit_next(plan: Plan) -> None:
    box = next_box(judged(plan, journal_of(plan, lambda planned: True)))
    assert box.command == "auditor audit --policy p.yaml --out NEW_RUN NEW_CHECKPOINT"
    assert "did not work" in box.sentences[0] and "90 s" in box.sentences[0]


def test_the_box_and_the_report_have_the_same_numbers(tmp_path: Path) -> None:
    plan = sequential()
    report = judged(plan, journal_of(plan, lost(20)))
    step, box = report.next_step, next_box(report)
    assert step is not None and box.command == step.command
    assert (box.images, box.minutes, box.p_pass, box.p_fail) == (
        step.images,
        step.minutes,
        step.p_pass,
        step.p_fail,
    )
    assert f"--retained-per-arm {step.budget['retained_per_arm']:g}" in (step.command or "")
    assert str(tmp_path) in (next_box(report, tmp_path).command or "")


DOCUMENTATION = Path(__file__).parents[2] / "docs"


def anchors(page: Path) -> set[str]:
    """Where a link into a page of the documentation may lead."""
    text = page.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.*?)(?: \{#[\w-]+\})?$", text, re.MULTILINE)
    return {explained("", title).partition("#")[2] for title in titles} | set(
        re.findall(r"""(?:\{#|id=")([\w-]+)""", text)
    )


def test_links_lead_to_headings_of_the_documentation(plan: Plan, tmp_path: Path) -> None:
    reports = [judged(plan, journal_of(plan, hit)) for hit in (erased_well, lambda planned: True)]
    pages = [make_plugin("reporters", "html", {}).render(each, tmp_path).decode() for each in reports]
    links = {*re.findall(rf"{DOCS}/([\w-]+)\.html(?:#([\w-]+))?", "".join(pages)), ("verdict", "verdict")}
    links |= {("inconclusive", cause.value) for cause in Cause}
    links |= {("errors", rule) for rule in RULES}
    assert set(HELP.values()) == {f"{DOCS}/errors.html#{rule}" for rule in RULES}
    assert {page for page, _ in links} == {"verdict", "controls", "inconclusive", "errors"}
    written = {page: DOCUMENTATION / f"{page}.md" for page, _ in links}
    assert all(file.exists() for file in written.values())
    lost = [
        f"{page}.md#{anchor}" for page, anchor in links if anchor and anchor not in anchors(written[page])
    ]
    assert not lost


# -- one voice -----------------------------------------------------------------------------------------------

FORMS = ("html", "markdown", "github-summary", "github-annotations", "junit", "sarif", "model-card")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("outcome", ["PASS", "FAIL", "INCONCLUSIVE"])
def test_every_form_says_the_headline(plan: Plan, tmp_path: Path, form: str, outcome: str) -> None:
    hits = {"PASS": erased_well, "FAIL": lambda planned: True, "INCONCLUSIVE": blind}
    report = judged(plan, journal_of(plan, hits[outcome]))
    text = make_plugin("reporters", form, {}).render(report, tmp_path).decode()
    plain = re.sub(r"[\\]|&#39;|&#34;|'|\"|%25|%", "", text)
    assert re.sub(r"['\"%]", "", headline(report)) in plain
    if form != "model-card":
        assert re.sub(r"['\"%]", "", next_box(report).sentences[0]) in plain


def test_the_terminal_says_it_in_order(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = judged(plan, journal_of(plan, blind))
    show_report(report, tmp_path / "gone")
    shown = capsys.readouterr().out
    wanted = ["INCONCLUSIVE", headline(report), "Why", reasons(report)[0].sentence, "What to do next", DOCS]
    places = [shown.index(text) for text in wanted]
    assert places == sorted(places)


# -- small words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("/home/me/models/erased", "erased"),
        ("/home/me/models/erased/", "erased"),
        ("~/models/erased", "erased"),
        ("C:\\models\\erased", "erased"),
        ("file:///home/me/erased", "erased"),
        ("models/erased", "models/erased"),
        ("hf://org/name@main", "hf://org/name@main"),
        ("micro", "micro"),
    ],
)
def test_no_place_on_anybodys_disk_is_published(name: str, shown: str) -> None:
    assert published(name) == shown


def test_a_command_is_published_without_places(plan: Plan, tmp_path: Path) -> None:
    command = "auditor audit --policy /home/me/p.yaml --component=unet=a.bin --out run /home/me/erased"
    assert (
        published_command(command) == "auditor audit --policy p.yaml --component=unet=a.bin --out run erased"
    )
    for other in ("no 'command", "bash -c 'rm -r x'", "auditor fetch x", "curl x | sh"):
        assert published_command(other) == "", "of a report that may be anybody's"
    report = judged(plan, journal_of(plan, erased_well))
    elsewhere = report.model_copy(
        update={
            "checkpoint": report.checkpoint.model_copy(update={"source": "/home/me/erased"}),
            "base": FACTS.model_copy(update={"source": "/home/me/base"}),
            "title": "/home/me/erased",
            "provenance": report.provenance.model_copy(update={"command": command}),
        }
    )
    for form in ("html", "markdown", "model-card", "github-summary", "attestation"):
        assert "/home/me" not in make_plugin("reporters", form, {}).render(elsewhere, tmp_path).decode()


@pytest.mark.parametrize(
    ("alpha", "said"), [(0.05, "95%"), (0.05 / 6, "99.1%"), (0.00001, "99.9%"), (0.1, "90%")]
)
def test_certainty_is_never_rounded_up(alpha: float, said: str) -> None:
    assert certainty(alpha) == said


# -- what was lost -------------------------------------------------------------------------------------------


def test_the_most_damaged_retained_pairs_are_in_the_report() -> None:
    plan = sequential()
    report = judged(plan, journal_of(plan, lost(7)))
    pairs = list(zip(report.damaged[::2], report.damaged[1::2], strict=True))
    assert pairs and all(one.arm == "base" and other.arm != "base" for one, other in pairs)
    assert {other.arm for _, other in pairs} == {"erased", ARM}
    for one, other in pairs:
        assert (one.prompt, one.index, one.hit, other.hit) == (other.prompt, other.index, True, False)
    assert json.loads(report.model_dump_json())["damaged"]
    assert judged(plan, journal_of(plan, erased_well)).damaged == ()


def test_missing_images_are_said_and_never_counted_as_looked_at(plan: Plan) -> None:
    """Six of ten images of every check are missing: what is left is no "nothing was seen in ten"."""
    report = verdict_of(plan, journal_of(plan, erased_well))
    few = {"images": 10, "missing": 6, "hits": 0, "rate": 0.0, "state": State.UNDECIDED}
    cells = tuple(cell.model_copy(update=few) if cell.state else cell for cell in report.cells)
    undecided = {"outcome": Outcome.INCONCLUSIVE, "reasons": ("x",), "causes": (Cause.TOO_FEW_IMAGES,)}
    verdict = report.verdict.model_copy(update=undecided)
    none = report.model_copy(update={"cells": cells, "verdict": verdict})
    assert f"{6 * len(gate_cells(none))} of which are missing" in headline(none)
    one = gate_cells(none)[0].model_copy(update={"hits": 2, "rate": 0.5})
    assert "seen in 2 of 10 images, 6 of them missing (50% of the rest)" in said_of(none, one)


def test_a_look_by_another_gate_says_so_first(plan: Plan) -> None:
    report = verdict_of(plan, journal_of(plan, erased_well))
    for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE):
        verdict = report.verdict.model_copy(update={"outcome": outcome})
        looked = report.model_copy(update={"exploratory": "Exploratory: x.", "verdict": verdict})
        assert notes(looked)[0] == "Exploratory: x." and next_box(looked).command is None
