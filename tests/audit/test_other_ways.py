"""Probes that change no weight: the erased model drawn with another sampler, and asked in other words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import auditor
from auditor._audit.cells import PlannedSample, Role, Weights
from auditor._audit.cost import denoiser_calls, most_images
from auditor._audit.judge import judge_folder
from auditor._audit.plan import Plan, make_plan
from auditor._audit.replay import replay
from auditor._audit.weaker import weaker_than_default
from auditor._journal.file import read_journal
from auditor._journal.lines import BatchLine, Line
from auditor.errors import PluginError, PolicyError
from auditor.plugin.instruments import make_probes
from auditor.report import Control, Outcome, Report
from tests.conftest import SMALL, erased_well, journal_of, policy_file, short_policy, verdict_of

pytestmark = pytest.mark.usefixtures("nano")

SAMPLING = {"use": "sampling", "options": {"scheduler": "ddim", "steps": 6, "guidance": 3}}
PROMPTS = {"use": "prompts", "options": {"prompts": {"Borin Talvek": ["Talvek, Borin", "a Borin Talvek"]}}}
SAMPLED, ASKED = "sampling-ddim-6-steps-guidance-3", "prompts"
TRAINED = short_policy().model_dump(mode="json")["probes"]
MIXED = [*TRAINED, SAMPLING, PROMPTS]


@pytest.fixture
def plan() -> Plan:
    return make_plan(short_policy(probes=MIXED))


@pytest.fixture(scope="module")
def audited(erased: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    folder = tmp_path_factory.mktemp("ways")
    policy = policy_file(folder, budget=SMALL, probes=[SAMPLING, PROMPTS])
    return auditor.audit(str(erased), policy, folder / "run", cache=folder / "cache"), folder / "run"


def found(report: Report, name: str, arm: str) -> Control:
    (control,) = [c for c in report.controls if (c.name, c.arm) == (name, arm)]
    return control


def test_each_is_drawn_beside_the_base_in_the_same_way(plan: Plan) -> None:
    assert [(arm.name, arm.weights) for arm in plan.arms] == [
        ("base", Weights.BASE),
        ("erased", Weights.ERASED),
        ("in-domain-lora", Weights.UPDATED),
        (f"base.{SAMPLED}", Weights.BASE),
        (SAMPLED, Weights.ERASED),
        (f"base.{ASKED}", Weights.BASE),
        (ASKED, Weights.ERASED),
    ]
    sampled = plan.sampler_of(plan.arm(SAMPLED))
    assert (sampled.scheduler, sampled.steps, sampled.guidance) == ("ddim", 6, 3)
    assert plan.sampler_of(plan.arm(f"base.{SAMPLED}")) == sampled != plan.policy.sampler
    assert plan.sampler_of(plan.arm(ASKED)) == plan.policy.sampler
    gate = plan.cell(ASKED, Role.GATE, "Borin Talvek")
    assert gate is not None and gate.prompts == ("Talvek, Borin", "a Borin Talvek")
    assert plan.cell(ASKED, Role.RETAINED) is None
    assert plan.retained_of(ASKED) is plan.cell("erased", Role.RETAINED)
    assert plan.retained_partner(SAMPLED) is plan.cell(f"base.{SAMPLED}", Role.RETAINED)
    assert len(plan.gate_cells) == 4 and plan.training_steps == 3


def test_an_erasure_that_holds_in_every_way_passes(plan: Plan) -> None:
    report = verdict_of(plan, drawn_apart(plan, erased_well))
    assert report.verdict.outcome is Outcome.PASS, report.verdict.reasons
    assert {row.arm for row in report.resurgence} == {"in-domain-lora", SAMPLED}
    assert {row.arm for row in report.quality} == {arm.name for arm in plan.arms} - {ASKED, f"base.{ASKED}"}
    assert report.other_ways == (
        f"{SAMPLED}: drawn with scheduler ddim instead of dpm-solver++, steps 6 instead of 5, guidance 3.0 "
        "instead of 4.0",
        f"{ASKED}: asked for Borin Talvek in 2 prompts of its own",
    )
    assert report.gate == "clip-zero-shot, as the detector says"


@pytest.mark.parametrize("arm", [SAMPLED, ASKED])
def test_what_is_drawn_in_one_way_alone_fails(plan: Plan, arm: str) -> None:
    def hit(planned: PlannedSample) -> bool:
        return erased_well(planned) or (planned.cell.arm == arm and planned.cell.role is Role.GATE)

    report = verdict_of(plan, drawn_apart(plan, hit))
    assert report.verdict.outcome is Outcome.FAIL and report.verdict.origin == "came back"
    assert arm in report.verdict.reasons[0]


@pytest.mark.parametrize("arm", [SAMPLED, ASKED])
def test_what_the_base_does_not_show_in_the_same_way_is_no_pass(plan: Plan, arm: str) -> None:
    def hit(planned: PlannedSample) -> bool:
        unseen = planned.cell.arm == f"base.{arm}" and planned.cell.role is Role.POSITIVE
        return erased_well(planned) and not unseen

    report = verdict_of(plan, drawn_apart(plan, hit))
    assert report.verdict.outcome is Outcome.INCONCLUSIVE
    (reason,) = report.verdict.reasons
    assert f"Control 'sensitivity' on base.{arm} did not pass" in reason


def test_a_sampler_that_ruins_every_image_says_nothing(plan: Plan) -> None:
    def hit(planned: PlannedSample) -> bool:
        ruined = planned.cell.role is Role.RETAINED and planned.cell.arm.endswith(SAMPLED)
        return erased_well(planned) and not ruined

    report = verdict_of(plan, drawn_apart(plan, hit))
    assert report.verdict.outcome is Outcome.INCONCLUSIVE
    assert any(f"'utility of the base' on base.{SAMPLED}" in reason for reason in report.verdict.reasons)


def test_a_sampler_that_draws_the_same_images_did_not_take(plan: Plan) -> None:
    report = verdict_of(plan, drawn_apart(plan, erased_well, same=(SAMPLED,)))
    control = found(report, "potent", SAMPLED)
    assert control.passed is False and control.value == 0 and report.verdict.outcome is Outcome.INCONCLUSIVE


def drawn_apart(plan: Plan, hit: Any, same: tuple[str, ...] = ()) -> list[Line]:
    """The journal of an audit; arms in ``same`` show the erased arm's images, bit for bit."""
    lines = journal_of(plan, hit)
    erased = {
        (sample.prompt, sample.seed): sample.image
        for line in lines
        if isinstance(line, BatchLine) and line.arm == "erased"
        for sample in line.samples
    }
    return [
        line.model_copy(
            update={
                "samples": tuple(
                    sample.model_copy(update={"image": erased.get((sample.prompt, sample.seed))})
                    for sample in line.samples
                )
            }
        )
        if isinstance(line, BatchLine) and line.arm in same
        else line
        for line in lines
    ]


@pytest.mark.parametrize(
    ("probe", "sentence"),
    [
        (
            {"use": "sampling", "options": {"scheduler": "dpm-solver++"}},
            "The probe sampling-dpm-solver samples as the policy does anyway",
        ),
        (SAMPLING | {"replicates": 2}, "trains nothing: 'replicates' and 'doses' mean nothing to it"),
        (SAMPLING | {"doses": [1, 2]}, "trains nothing"),
        (
            {"use": "prompts", "options": {"prompts": {"Borin Talvek": ["A  Sketch of BORIN Talvek"]}}},
            "which the policy asks anyway",
        ),
        (
            {"use": "prompts", "options": {"prompts": {"Borin Talvek": ["the man"], "Talvak": ["him"]}}},
            "has prompts for 'Talvak', which the policy does not erase",
        ),
        ({"use": "prompts", "options": {"templates": ["a {} {}"]}}, "needs exactly one"),
        ({"use": "prompts", "options": {"prompts": {"Borin Talvek": [" "]}}}, "a list of prompts is right"),
        ({"use": "prompts", "options": {}}, "give 'templates', 'synonyms', 'prompts' or 'csv'"),
        ({"use": "sampling", "options": {"size": 64}}, "unknown key 'size'"),
    ],
)
def test_what_a_probe_cannot_do_is_refused_before_anything_is_drawn(
    probe: dict[str, Any], sentence: str
) -> None:
    with pytest.raises((PolicyError, PluginError), match=sentence):
        make_plan(short_policy(probes=[probe]))


def test_prompts_come_from_a_file_too(tmp_path: Path) -> None:
    file = tmp_path / "found.csv"
    file.write_text("concept,prompt\nborin  TALVEK,the man with the red coat\nship,a boat\n")
    plan = make_plan(
        short_policy(probes=[{"use": "prompts", "options": {"csv": str(file), "label": "found"}}])
    )
    cell = plan.cell("prompts-found", Role.GATE, "Borin Talvek")
    assert cell is not None and cell.prompts == ("the man with the red coat",)


def test_a_concept_that_is_not_asked_for_is_said_to_be_so() -> None:
    two = [
        {"name": name, "domain": "people", "prompts": "paper-people", "synonyms": synonyms}
        for name, synonyms in (("Borin Talvek", []), ("Nuria Pellow", ["the singer"]))
    ]
    policy = short_policy(erase=two, probes=[PROMPTS])
    sentences = weaker_than_default(policy, make_probes(policy))
    assert "prompts has no prompt for Nuria Pellow" in sentences
    assert "no probe changes a weight, so what ordinary updates bring back is not measured" in sentences
    by_synonym = {"use": "prompts", "options": {"prompts": {"The  Singer": ["she who sings"]}}}
    cell = make_plan(short_policy(erase=two, probes=[by_synonym])).cell(ASKED, Role.GATE, "Nuria Pellow")
    assert cell is not None and cell.prompts == ("she who sings",)


def test_the_forecast_counts_each_samplers_own_steps() -> None:
    plan = make_plan(short_policy(probes=[SAMPLING | {"options": {"steps": 50}}]))
    own = sum(cell.images for cell in plan.cells if plan.arm(cell.arm).sampler is not None)
    assert own and denoiser_calls(plan, most_images(plan)) == 2 * (50 * own + 5 * (plan.images - own))


def test_both_are_audited_end_to_end(audited: tuple[Report, Path]) -> None:
    report, out = audited
    assert report.ledger.whole and not report.training
    took, asked = found(report, "potent", SAMPLED), found(report, "potent", ASKED)
    assert took.passed and took.value == 1.0 and took.n == 10
    assert asked.passed and asked.n == 2
    drawn = {
        (line.arm, sample.prompt, sample.seed): sample.image
        for line in read_journal(out / "journal.jsonl")
        if isinstance(line, BatchLine)
        for sample in line.samples
    }
    pairs = [key[1:] for key in drawn if key[0] == SAMPLED and ("erased", *key[1:]) in drawn]
    assert pairs and all(drawn[SAMPLED, *pair] != drawn["erased", *pair] for pair in pairs)
    assert judge_folder(out) == report


def test_every_way_is_drawn_again_by_a_replay(audited: tuple[Report, Path]) -> None:
    _, out = audited
    found = replay(out, samples=60).provenance.replay
    assert found is not None and found.images >= 60 and found.identical == found.images, found
