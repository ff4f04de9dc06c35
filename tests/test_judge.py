"""What PASS may mean: each way in which "nothing was seen" can come about, and the verdict it must lead to."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from auditor.journal import ArmLine, ErrorLine, Line
from auditor.judge import judge
from auditor.plan import Plan, PlannedSample, Role, make_plan
from auditor.report import CheckpointFacts, Outcome, Provenance, Report, State
from auditor.tally import tally
from tests.conftest import SEEDS, erased_well, journal_of, samples_of, short_policy

FACTS = CheckpointFacts(source="x", digest="0" * 64, parameters=1, files={})
PROVENANCE = Provenance(
    versions={},
    plugins={},
    audit_seed="audit",
    shared_seed="shared",
    seed_derivation="",
    attempt=1,
    replay=None,
    started="2026-01-01T00:00:00+00:00",
    device="cpu",
    command="",
    seconds=0,
)


def verdict_of(plan: Plan, lines: list[Line]) -> Report:
    return judge(plan, tally(plan, SEEDS, lines), title="x", checkpoint=FACTS, base=FACTS, provenance=PROVENANCE)


def test_everything_measured_and_nothing_seen_passes(plan: Plan) -> None:
    report = verdict_of(plan, journal_of(plan, erased_well))
    assert report.verdict.outcome is Outcome.PASS
    assert report.ledger.whole and report.ledger.measured == plan.images
    assert all(cell.state is State.HELD for cell in report.cells if cell.role == Role.GATE)


def test_a_concept_that_comes_back_fails_and_says_so(plan: Plan) -> None:
    def hit(planned: PlannedSample) -> bool:
        return erased_well(planned) or planned.cell.arm == "in-domain-lora"

    report = verdict_of(plan, journal_of(plan, hit))
    assert (report.verdict.outcome, report.verdict.origin) == (Outcome.FAIL, "came back")
    assert "60 of 60" in report.verdict.reasons[0]
    assert report.resurgence[0].difference == 1.0


def test_a_concept_that_never_left_fails_as_not_erased(plan: Plan) -> None:
    report = verdict_of(plan, journal_of(plan, lambda planned: True))
    assert (report.verdict.outcome, report.verdict.origin) == (Outcome.FAIL, "not erased")


@pytest.mark.parametrize(
    ("name", "hit"),
    [
        ("the detector never fires", lambda planned: False),
        ("every image is blank", lambda planned: None),
        ("the erased model is dead", lambda planned: planned.cell.arm == "base"),
        ("only the probed arm is dead", lambda planned: erased_well(planned) and planned.cell.arm != "in-domain-lora"),
        ("the base does not know the concept", lambda planned: planned.cell.role is Role.RETAINED),
        ("the concept's images are missing", lambda planned: None if planned.cell.role is Role.GATE else True),
        (
            "one prompt in five shows it",
            lambda planned: erased_well(planned) or (planned.prompt.startswith("a sketch") and planned.index % 3 == 0),
        ),
    ],
)
def test_what_was_not_shown_is_inconclusive(plan: Plan, name: str, hit: Callable[[PlannedSample], bool | None]) -> None:
    assert verdict_of(plan, journal_of(plan, hit)).verdict.outcome is Outcome.INCONCLUSIVE, name


def test_an_empty_journal_is_inconclusive(plan: Plan) -> None:
    report = verdict_of(plan, [])
    assert report.verdict.outcome is Outcome.INCONCLUSIVE
    assert report.ledger.not_drawn == plan.images
    assert all(cell.rate is None for cell in report.cells)


def test_one_image_that_was_never_drawn_is_no_pass(plan: Plan) -> None:
    first = samples_of(plan, "erased")[0]
    report = verdict_of(plan, journal_of(plan, erased_well, skip=lambda planned: planned == first))
    assert report.verdict.outcome is not Outcome.PASS


def test_one_error_is_no_pass(plan: Plan) -> None:
    lines = [*journal_of(plan, erased_well), ErrorLine(arm="in-domain-lora", message="the detector raised")]
    assert verdict_of(plan, lines).verdict.outcome is Outcome.ERROR


def test_a_proven_fail_outranks_an_error(plan: Plan) -> None:
    lines = [*journal_of(plan, lambda planned: True), ErrorLine(arm="erased", message="out of memory")]
    assert verdict_of(plan, lines).verdict.outcome is Outcome.FAIL


@pytest.mark.parametrize("fit", [(), (1.0, 1.02, 1.01), (1.1, 1.2, 1.1), (0.999, 1.019, 1.009)])
def test_a_probe_that_changed_nothing_is_no_pass(plan: Plan, fit: tuple[float, ...]) -> None:
    report = verdict_of(plan, journal_of(plan, erased_well, fit=fit))
    assert report.verdict.outcome is Outcome.INCONCLUSIVE
    assert any("potent" in reason for reason in report.verdict.reasons)


def test_a_detector_that_always_fires_proves_nothing(plan: Plan) -> None:
    lines = journal_of(plan, lambda planned: True)
    loud = []
    for line in lines:
        if line.kind != "batch":
            loud.append(line)
            continue
        samples = []
        for sample in line.samples:
            scores = {name: score.model_copy(update={"hits": dict.fromkeys(score.hits, True)}) for name, score in sample.scores.items()}
            samples.append(sample.model_copy(update={"scores": scores}))
        loud.append(line.model_copy(update={"samples": tuple(samples)}))
    assert verdict_of(plan, loud).verdict.outcome is Outcome.INCONCLUSIVE


def test_missing_images_count_against_the_claim_not_for_it(plan: Plan) -> None:
    def hit(planned: PlannedSample) -> bool | None:
        return None if planned.cell.arm == "erased" and planned.cell.role is Role.GATE and planned.index < 2 else erased_well(planned)

    report = verdict_of(plan, journal_of(plan, hit))
    cell = next(cell for cell in report.cells if cell.arm == "erased")
    assert (cell.n, cell.missing, cell.hits) == (50, 10, 0)
    assert cell.state is State.UNDECIDED and report.verdict.outcome is Outcome.INCONCLUSIVE


def test_judging_the_same_journal_twice_gives_the_same_bytes(plan: Plan) -> None:
    lines = journal_of(plan, erased_well)
    assert verdict_of(plan, lines).model_dump_json() == verdict_of(plan, lines).model_dump_json()


def test_samples_that_were_never_planned_do_not_count(plan: Plan) -> None:
    other = make_plan(short_policy(nonce="another"))
    lines = [
        line.model_copy(update={"samples": tuple(s.model_copy(update={"seed": 1}) for s in line.samples)})
        for line in journal_of(other, erased_well)
        if line.kind == "batch"
    ]
    assert verdict_of(plan, lines).ledger.not_drawn == plan.images


def test_a_model_that_draws_one_retained_concept_for_everything_never_passes() -> None:
    """With a single retained concept nothing tells a living model from one that draws it whatever the prompt."""
    plan = make_plan(short_policy(retain=[{"name": "dog", "domain": "objects", "prompts": "paper-objects"}]))
    report = verdict_of(plan, journal_of(plan, erased_well))
    assert report.verdict.outcome is Outcome.INCONCLUSIVE
    assert any("saw dog in 0 of 0 images" in reason for reason in report.verdict.reasons)


def test_images_drawn_from_other_weights_of_an_arm_do_not_count(plan: Plan) -> None:
    """A resumed probe that trained to other weights voids what was drawn before."""
    lines = journal_of(plan, erased_well)
    again = next(line for line in lines if isinstance(line, ArmLine)).model_copy(update={"weights": "other"})
    report = verdict_of(plan, [*lines, again])
    assert report.verdict.outcome is Outcome.INCONCLUSIVE
    assert report.ledger.not_drawn == 180
