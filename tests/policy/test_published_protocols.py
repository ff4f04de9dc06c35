"""Published protocols as policies: they load with the files that their comments ask for, and keep the
published counts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from auditor._audit.cells import Role
from auditor._audit.plan import Plan, make_plan
from auditor._cli import cli
from auditor._files.bundled import policies_folder
from auditor.policy import load_policy
from auditor.policy.concepts.sets import prompt_templates

NAMES = ("resalign-nudity", "meta-unlearning-benign", "illusion-curriculum", "mace-celebrities-50")


def _prompts(path: Path, count: int) -> None:
    path.write_text("concept,prompt\n" + "".join(f"nudity,a scene of number {n}\n" for n in range(count)))


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what the files tell their user to bring, at its published size."""
    monkeypatch.chdir(tmp_path)
    _prompts(tmp_path / "i2p.csv", 931)
    _prompts(tmp_path / "nudity.csv", 142)
    erased = [f"Borin Talvek{'abcdefghij'[n // 10]}{'abcdefghij'[n % 10]}" for n in range(100)]
    kept = [name.replace("Borin", "Zelda") for name in erased]
    (tmp_path / "erased-celebrities-50.txt").write_text("\n".join(erased[:50]))
    (tmp_path / "retained-celebrities.txt").write_text("\n".join(kept))
    rows = [
        f"{template.format(name)},{seed}"
        for name in (*erased, *kept)
        for template in prompt_templates("paper-people")
        for seed in range(1, 6)
    ]
    (tmp_path / "celebrity_100_concepts.csv").write_text("\n".join(["prompt,evaluation_seed", *rows]))
    return tmp_path


def plan_of(name: str) -> Plan:
    return make_plan(load_policy(name))


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_and_is_costed(brought: Path, name: str) -> None:
    done = CliRunner().invoke(cli, ["policy", "check", name, "--allow-no-pass"])
    assert done.exit_code == 0 and "digest: sha256:" in done.output, done.exception
    done = CliRunner().invoke(cli, ["plan", "--policy", name, "--offline"])
    assert done.exit_code == 0 and "UNet evaluations" in done.output, done.exception


@pytest.mark.parametrize("name", [name for name in NAMES if name != "illusion-curriculum"])
def test_what_must_be_brought_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["policy", "list", "--no-images", "--format", "json"])
    (row,) = [row for row in json.loads(done.stdout) if row["name"] == name]
    (file,) = [
        file for file in ("i2p.csv", "nudity.csv", "erased-celebrities-50.txt") if file in row["missing"]
    ]
    text = (policies_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    assert file in text.partition("\nversion:")[0], "the comment says where to take it from"


def test_resalign_keeps_its_counts(brought: Path) -> None:
    policy, plan = load_policy("resalign-nudity"), plan_of("resalign-nudity")
    _, *updates = policy.probes
    assert [(use.method, use.replicates, use.doses) for use in updates] == [("full", 3, (200,))] * 2
    assert [use.options["learning_rate"] for use in updates] == [1e-5] * 2
    cell = plan.cell("prompts-i2p", Role.GATE, "nudity")
    assert cell is not None and len(cell.prompts) == 931 and cell.images == 2793


def test_meta_unlearning_keeps_its_counts(brought: Path) -> None:
    plan = plan_of("meta-unlearning-benign")
    cell = plan.cell("prompts-142", Role.GATE, "nudity")
    assert cell is not None and len(cell.prompts) == cell.images == 142
    assert load_policy("meta-unlearning-benign").probes[1].doses == (50, 100, 200, 300)


def test_the_curriculum_has_ten_steps_of_forty(brought: Path) -> None:
    (use,) = load_policy("illusion-curriculum").probes
    members = use.options["updates"]
    assert use.doses == tuple(range(1, 11)) and len(members) == 10
    assert {(each["method"], each["steps"]) for each in members} == {("full", 40)}
    for each in members:
        options = each["options"]
        assert (options["images_per_prompt"], options["batch"], options["learning_rate"]) == (50, 10, 1e-5)
        assert each["steps"] * options["batch"] == 8 * options["images_per_prompt"], "eight epochs"
    trained = [name for each in members for name in each["options"]["candidates"]]
    assert len(set(trained)) == 10
    cell = plan_of("illusion-curriculum").cell("sequence.seed1.step10", Role.GATE, "golf ball")
    assert cell is not None and len(cell.prompts) == 20 and cell.images == 100


def test_mace_has_its_seeds_and_counts(brought: Path) -> None:
    policy, plan = load_policy("mace-celebrities-50"), plan_of("mace-celebrities-50")
    assert len(policy.erase) == 50 and len(policy.retain) == 100
    seeds = Counter(seed for concept in policy.erase for each in concept.evaluation_seeds for seed in each)
    assert seeds == dict.fromkeys(range(1, 6), 250)
    cells = [plan.cell("erased", Role.GATE, concept.name) for concept in policy.erase]
    assert {cell.images for cell in cells if cell is not None} == {25} and len(cells) == 50
    done = CliRunner().invoke(cli, ["policy", "check", "mace-celebrities-50"])
    assert done.exception is not None and done.exception.exit_code == 2  # type: ignore[attr-defined]
