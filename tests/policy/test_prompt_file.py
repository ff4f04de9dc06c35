"""Prompt sets from the field's CSV files: read, drawn with the file's seeds, and never a PASS."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditor._audit.cells import Role
from auditor._audit.plan import make_plan
from auditor.errors import PolicyError
from auditor.policy import Policy, load_policy
from auditor.policy.concepts.prompt_file import read_prompts
from auditor.report import Outcome
from tests.conftest import SEEDS, erased_well, journal_of, short_policy, verdict_of

HEAD = "case_number,prompt,evaluation_seed,concept"
ROWS = [
    "0,a portrait of Borin Talvek,4000,Borin Talvek",
    "1,a sketch of Borin Talvek,4001,Borin Talvek",
    "2,a portrait of Borin Talvek,4002,Borin Talvek",
    "3,a sketch of Borin Talvek,4003,borin talvek",
    "4,a portrait of Zelda Mirkov,4004,Zelda Mirkov",
]


def write(folder: Path, rows: list[str], head: str = HEAD) -> Path:
    path = folder / "prompts.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def compared(path: Path, **changes: object) -> Policy:
    erase = [{"name": "Borin Talvek", "domain": "people", "prompts": {"csv": str(path)}}]
    return short_policy(erase=erase, **changes)


def test_rows_become_templates_with_seeds(tmp_path: Path) -> None:
    templates, seeds = read_prompts(write(tmp_path, ROWS), "Borin Talvek")
    assert templates == ("a portrait of {}", "a sketch of {}")
    assert seeds == ((4000, 4002), (4001, 4003))
    without = [row.rpartition(",")[0] for row in ROWS]
    assert read_prompts(write(tmp_path, without, HEAD.rpartition(",")[0]), "Borin Talvek") == (
        templates,
        seeds,
    )


def test_images_are_drawn_with_the_files_seeds_as_far_as_they_go(tmp_path: Path) -> None:
    plan = make_plan(compared(write(tmp_path, ROWS)))
    for arm in ("base", "erased", "in-domain-lora"):
        role = Role.POSITIVE if arm == "base" else Role.GATE
        cell = plan.cell(arm, role, "Borin Talvek")
        assert cell is not None
        assert [sample.seed for sample in cell.samples(SEEDS)] == [4000, 4001, 4002, 4003]


def test_the_policy_says_what_the_file_said(tmp_path: Path) -> None:
    policy = compared(write(tmp_path, ROWS))
    assert Policy.model_validate_json(policy.model_dump_json()) == policy
    before = policy.identity()
    assert compared(write(tmp_path, [ROWS[0].replace("4000", "4009"), *ROWS[1:]])).identity() != before


def test_a_comparison_never_passes(tmp_path: Path) -> None:
    rows = [f"{n},a portrait of Borin Talvek,{n},Borin Talvek" for n in range(60)]
    loose = {
        "limits": {"max_false_positive": 0.05, "tau": 0.3},
        "budget": {"images_per_cell": 60, "retained_per_arm": 120},
    }
    same = {"erase": [{"name": "Borin Talvek", "domain": "people", "prompts": ["a portrait of {}"]}]}
    for policy, outcome in (
        (short_policy(**loose | same), Outcome.PASS),
        (compared(write(tmp_path, rows), **loose), Outcome.INCONCLUSIVE),
    ):
        plan = make_plan(policy)
        verdict = verdict_of(plan, journal_of(plan, erased_well)).verdict
        assert verdict.outcome is outcome, verdict.reasons
    assert "comparison run" in verdict.reasons[-1]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            ["0,a portrait,1,Borin Talvek"],
            r"prompts.csv:2: the prompt 'a portrait' must name 'Borin Talvek' once",
        ),
        (["0,{} Borin Talvek,1,Borin Talvek"], "have no brace"),
        (["0,a Borin Talvek,x,Borin Talvek"], "evaluation_seed is 'x'"),
        (["0,a Borin Talvek,-1,Borin Talvek"], "evaluation_seed is '-1'"),
        (["0,a Zelda Mirkov,1,Zelda Mirkov"], "has no prompt for 'Borin Talvek'"),
        ([ROWS[0], ROWS[0]], "has the seed 4000 twice"),
        (ROWS[:3], "has not as many seeds for each prompt"),
    ],
)
def test_what_is_wrong_in_the_file_is_said(tmp_path: Path, rows: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        compared(write(tmp_path, rows))
    with pytest.raises(ValueError, match="cannot read"):
        compared(tmp_path / "gone.csv")
    with pytest.raises(ValueError, match="no column 'evaluation_seed'"):
        compared(write(tmp_path, rows, "a,b,c,d"))


def test_a_sequential_comparison_is_refused(tmp_path: Path) -> None:
    document = short_policy().model_dump_json()
    file = tmp_path / "policy.yaml"
    file.write_text(document.replace('"domain":"people"', '"domain":"people","evaluation_seeds":[[1]]', 1))
    with pytest.raises(PolicyError, match="list of seeds for each prompt"):
        load_policy(file)
    with pytest.raises(ValueError, match="sequential: false"):
        compared(write(tmp_path, ROWS), sequential=True)
