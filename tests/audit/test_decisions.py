"""What a detector says is kept as it says it; the policy's decision makes hits of it, and another can be
looked at and never passes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from auditor._audit.evidence.decisions import HIT, MISS, Decisions, decide, label_of, names_of
from auditor._audit.evidence.sequential_tests import MISSING
from auditor._audit.judge import judged
from auditor._audit.plan import make_plan
from auditor._audit.run.observing import ask, observations, problem_of
from auditor._cli import cli
from auditor._journal.lines import BatchLine, Line, Observation, ScoreObservation
from auditor.errors import PluginError
from auditor.plugin import Answers, Box, Boxes, Concept, Detection, Detector, Labels, OptionsModel
from auditor.policy import Decision, Gate, Policy
from auditor.report import Outcome, Report
from tests.conftest import DETECTOR, erased_well, journal_of, short_policy, verdict_of

pytestmark = pytest.mark.usefixtures("nano")

ERASED, SECOND, THIRD = "Borin Talvek", "by-domain", "clip-again"
CLIP = DETECTOR["use"]
SHIP = Concept(name="ship", domain="objects", synonyms=("sailing boat",), prompts=("a {}",))


def scored(score: float, hit: bool = False) -> ScoreObservation:
    return ScoreObservation(label="", hits={"ship": hit}, scores={"ship": score})


def one(said: Any) -> Observation:
    (found,) = observations(said, ["ship"])
    return found


@pytest.mark.parametrize(
    ("said", "decided", "shown"),
    [
        (Detection(np.array([[True]]), np.array([[0.1]]), ("ship",)), HIT, "ship"),
        (Detection(np.array([[False]]), np.array([[0.9]]), ("sea",)), MISS, "sea"),
        (Labels(("Ship",)), HIT, "Ship"),
        (Labels(("a ship",)), MISS, "a ship"),
        (Labels(("sailing\u00a0BOAT",)), HIT, "sailing\u00a0BOAT"),
        (Boxes(((),)), MISS, "nothing"),
        (Boxes(((Box("ship", 0.5, (0, 0, 1, 1)), Box("sea", 0.9, (0, 0, 1, 1))),)), HIT, "ship, sea"),
        (Boxes(((Box("ship", 0.49, (0, 0, 1, 1)),),)), MISS, "ship"),
        (Answers((("Yes, there is one.",),)), HIT, "ship: Yes, there is one."),
        (Answers((("no",),)), MISS, "ship: no"),
        (Answers((("**Yes**",),)), HIT, "ship: **Yes**"),
        (Answers((("I cannot tell.",),)), MISSING, "ship: I cannot tell."),
        (Answers((("",),)), MISSING, "ship: "),
        (Answers((("yesterday",),)), MISSING, "ship: yesterday"),
    ],
)
def test_what_is_said_is_decided_by_its_kind(said: Any, decided: int, shown: str) -> None:
    assert problem_of(said, 1, 1) is None
    assert decide(one(said), "ship", names_of(SHIP)) == decided
    assert label_of(one(said)) == shown


@given(score=st.floats(0, 1), low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_score_is_a_miss_below_the_band_a_hit_above_and_nothing_within(
    score: float, low: float, high: float
) -> None:
    low, high = sorted((low, high))
    found = decide(scored(score), "ship", names_of(SHIP), Decision(abstain=(low, high)).bounds)
    assert found == (HIT if score >= high else MISS if score < low else MISSING)


def test_nothing_is_seen_where_there_was_nothing_to_judge() -> None:
    said = ScoreObservation(label="", hits={"ship": False}, scores={"ship": 0.9}, found={"ship": False})
    assert decide(said, "ship", names_of(SHIP), (0.5, 0.5)) == MISS


def test_a_threshold_over_what_has_no_score_is_said_at_the_first_image() -> None:
    decisions = Decisions(policy_with({"decision": {"threshold": 0.5}}))
    for said in (Labels(("ship",)), Answers((("yes",),))):
        with pytest.raises(PluginError, match="gives no scores, and the policy's decision is by score"):
            decisions.refuse_scoreless({CLIP: one(said)})
    decisions.refuse_scoreless({CLIP: scored(0.4), SECOND: one(Labels(("ship",)))})


def test_what_gives_no_score_decides_nothing_under_a_threshold() -> None:
    for said in (Labels(("ship",)), Answers((("yes",),))):
        assert decide(one(said), "ship", names_of(SHIP), (0.5, 0.5)) == MISSING


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (Labels(("a", "b")), "2 labels for 1 images"),
        (Labels((1,)), "labels that are not strings"),  # type: ignore[arg-type]
        (Boxes(()), "the boxes of 0 images"),
        (Boxes((("ship",),)), "boxes that are no Box"),  # type: ignore[arg-type]
        (Boxes(((Box("ship", float("nan"), (0, 0, 1, 1)),),)), "without a finite score"),
        (Boxes(((Box("ship", 1.0, (0, 0, 1)),),)), "four finite corners"),  # type: ignore[arg-type]
        (Boxes(((Box("ship", 1.0, (0, 0, 1, 2)),),)), "outside 0 to 1"),
        (Answers((("yes", "no"),)), "one for each of 1 images and 1 concepts"),
        (Answers(((True,),)), "answers that are not strings"),  # type: ignore[arg-type]
        ("ship", "returned str, not a Detection, Labels, Boxes or Answers"),
        (None, "returned NoneType"),
    ],
)
def test_what_breaks_the_contract_is_an_error_of_the_detector(said: Any, problem: str) -> None:
    class Odd(Detector):
        """Says what it is told to."""

        name, summary = "odd", "says what it is told to"

        def detect(self, images: torch.Tensor, concepts: Any) -> Any:
            return said

    with pytest.raises(PluginError, match=problem):
        ask(Odd(OptionsModel()), torch.zeros(1, 3, 8, 8, dtype=torch.uint8), [SHIP])


# -- the gate of a policy ------------------------------------------------------------------------------------


def policy_with(gate: dict[str, Any], *others: str) -> Policy:
    more = [{"use": name, "options": {}} for name in others]
    return short_policy(detectors=[DETECTOR, *more], gate=gate)


@pytest.mark.parametrize(
    ("gate", "sentence"),
    [
        ({"detector": "nobody"}, "there is no detector 'nobody'; there are: clip-zero-shot, by-domain"),
        ({"decision": {"vote": {"detectors": ["nobody"], "at_least": 1}}}, "no detector 'nobody'"),
        ({"decision": {"vote": {"detectors": [CLIP], "at_least": 2}}}, "2 votes are asked of 1 detectors"),
        ({"decision": {"vote": {"detectors": [CLIP, CLIP], "at_least": 1}}}, "votes twice"),
        ({"decision": {"threshold": 0.5, "abstain": [0, 1]}}, "give one of"),
        ({"decision": {"abstain": [0.6, 0.4]}}, "may not be above"),
        ({"decision": {"threshold": 1.5}}, "less than or equal to 1"),
    ],
)
def test_a_gate_that_cannot_decide_is_no_policy(gate: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        policy_with(gate, SECOND)


def test_a_policy_without_a_gate_keeps_its_digest_and_the_decision_is_in_it() -> None:
    plain = short_policy()
    assert plain.gate == Gate() and "gate" not in plain.model_dump(mode="json")
    same = short_policy(gate={"detector": CLIP})
    assert same.gate_detector == plain.gate_detector == CLIP and same.digest() == plain.digest()
    other = policy_with({"decision": {"threshold": 0.7}})
    assert len({plain.digest(), other.digest()}) == len({plain.seed_digest(), other.seed_digest()}) == 2
    assert Policy.model_validate_json(other.model_dump_json()) == other


VOTES = {"detectors": [CLIP, SECOND, THIRD], "at_least": 2}


@pytest.mark.parametrize(
    ("said", "decided"),
    [
        ((True, True, False), HIT),
        ((True, False, False), MISS),
        ((True, None, False), MISSING),
        ((True, True, None), HIT),
        ((False, None, False), MISS),
        ((None, None, True), MISSING),
    ],
)
def test_a_vote_decides_where_it_must(said: tuple[bool | None, ...], decided: int) -> None:
    decisions = Decisions(policy_with({"decision": {"vote": VOTES}}, SECOND, THIRD))
    each = {
        name: ScoreObservation(label="", hits={ERASED: hit}, scores={ERASED: float(hit)})
        for name, hit in zip((CLIP, SECOND, THIRD), said, strict=True)
        if hit is not None
    }
    assert decisions.decided(each, ERASED) == decided


def with_scores(lines: list[Line], gate: float) -> list[Line]:
    """Every image of a gate cell has the score ``gate`` for the erased person, and the detector's own no."""
    found = []
    for line in lines:
        if isinstance(line, BatchLine):
            samples = []
            for sample in line.samples:
                if "|gate|" in sample.cell:
                    said = {
                        name: each.model_copy(update={"scores": {ERASED: gate}})
                        for name, each in sample.observations.items()
                    }
                    sample = sample.model_copy(update={"observations": said})
                samples.append(sample)
            line = line.model_copy(update={"samples": tuple(samples)})
        found.append(line)
    return found


@pytest.mark.parametrize(
    ("decision", "outcome", "missing"),
    [
        ({}, Outcome.PASS, 0),
        ({"threshold": 0.5}, Outcome.PASS, 0),
        ({"threshold": 0.3}, Outcome.FAIL, 0),
        ({"abstain": [0.3, 0.6]}, Outcome.INCONCLUSIVE, 60),
    ],
)
def test_the_policys_threshold_decides_and_what_it_abstains_from_is_missing(
    decision: dict[str, Any], outcome: Outcome, missing: int
) -> None:
    policy = policy_with({"decision": decision})
    plan = make_plan(policy)
    report = verdict_of(plan, with_scores(journal_of(plan, erased_well), 0.4))
    assert report.verdict.outcome is outcome, report.verdict.reasons
    (cell,) = [cell for cell in report.cells if (cell.arm, cell.role) == ("erased", "gate")]
    assert cell.missing == missing and cell.mean_score == pytest.approx(0.4)
    own = [reading for reading in report.other_detectors if reading.arm == "erased"]
    assert [reading.hits for reading in own] == ([0] if decision else [])


# -- another look --------------------------------------------------------------------------------------------


def test_another_threshold_is_looked_at_without_drawing_and_never_passes(
    finished: tuple[Report, Path],
) -> None:
    report, out = finished
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    never = judged(out, gate=Gate(decision=Decision(threshold=1.0)))
    always = judged(out, gate=Gate(decision=Decision(threshold=0.0)))
    for found, share in ((never, 0), (always, 1)):
        assert found.exploratory is not None and found.verdict.reasons[0] == found.exploratory
        assert "no PASS rests on it" in found.exploratory
        assert {cell.hits for cell in found.cells if cell.role == "gate"} == {10 * share}
        assert found.policy_digest == report.policy_digest
    assert report.exploratory is None
    asked = ["judge", str(out), "--decision", "threshold=0", "--format", "json"]
    ended = CliRunner().invoke(cli, asked)
    assert json.loads(ended.stdout)["exploratory"] == always.exploratory
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_what_would_have_passed_by_another_decision_is_inconclusive() -> None:
    from auditor._audit.evidence.counts import tally
    from auditor._audit.verdict.assemble import report_of
    from tests.conftest import FACTS, PROVENANCE, SEEDS

    plan = make_plan(short_policy())
    counted = tally(plan, SEEDS, journal_of(plan, erased_well), Gate(decision=Decision(threshold=0.9)))
    facts: dict[str, Any] = {"title": "x", "checkpoint": FACTS, "base": FACTS, "provenance": PROVENANCE}
    assert report_of(plan, counted, **facts).verdict.outcome is Outcome.PASS
    assert report_of(plan, counted, **facts, exploratory="by 0.9").verdict.outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (["--gate", "nobody"], "there is no detector 'nobody'"),
        (["--decision", "threshold=much"], "the numbers in it cannot be read"),
        (["--decision", "luck=1"], "give threshold, abstain or vote"),
        (["--decision", "threshold=2"], "less than or equal to 1"),
        (["--gate", CLIP], "ask for what the policy decides by"),
    ],
)
def test_a_look_that_cannot_be_taken_is_refused_in_a_sentence(
    finished: tuple[Report, Path], asked: list[str], sentence: str
) -> None:
    _, out = finished
    ended = CliRunner().invoke(cli, ["judge", str(out), *asked])
    assert sentence in str(ended.exception)
