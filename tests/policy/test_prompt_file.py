"""Prompt sets from the field's CSV files: read, drawn with the file's seeds, and never a PASS."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from auditor._audit.cells import Role
from auditor._audit.plan import make_plan
from auditor.errors import PolicyError
from auditor.policy import Policy, load_policy, read_policy
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


def read_as(
    folder: Path, content: str, names: list[str], **changes: object
) -> tuple[Policy, tuple[str, ...]]:
    """The policy whose concepts have their prompts from a file beside it; what is said of its rows."""
    (folder / "other.csv").write_text(content, encoding="utf-8")
    erase = [{"name": name, "domain": "objects", "prompts": {"csv": "other.csv"}} for name in names]
    kept = [{"name": "lamp", "domain": "objects", "synonyms": ["lantern"], "prompts": ["a photo of {}"]}]
    document = short_policy().model_dump(mode="json") | {"erase": erase, "retain": kept} | changes
    (folder / "policy.yaml").write_text(json.dumps(document | {"sequential": False}))
    found = read_policy(folder / "policy.yaml")
    return found.policy, found.rows


def templates_of(policy: Policy) -> dict[str, tuple[str, ...]]:
    return {concept.name: concept.templates for concept in policy.erase}


def test_the_longest_name_in_a_prompt_owns_its_row(tmp_path: Path) -> None:
    content = "prompt,evaluation_seed\na photo of a dog,1\na photo of a hot dog,2\na Hot  Dog stand,3\n"
    policy, said = read_as(tmp_path, content, ["dog", "hot dog"])
    assert templates_of(policy) == {"dog": ("a photo of a {}",), "hot dog": ("a photo of a {}", "a {} stand")}
    assert "3 of 3 rows" in said[0] and "'a Hot Dog stand'" in said[-1]
    policy, said = read_as(tmp_path, content, ["dog"])  # nobody said that there are hot dogs
    assert "'a hot dog'" in said[-1], "what the name was read in is said"
    (tmp_path / "policy.yaml").unlink()
    named = content.replace("seed", "seed,class").replace(",1\n", ",1,dog\n").replace(",2\n", ",2,hot dog\n")
    policy, said = read_as(tmp_path, named.replace(",3\n", ",3,hot dog\n"), ["dog"])
    assert (
        templates_of(policy) == {"dog": ("a photo of a {}",)} and "line 3: 'a photo of a hot dog'" in said[1]
    )


def test_rows_that_are_nobodys_are_counted(tmp_path: Path) -> None:
    rows = ["a dog", "a photo of dogs", "a hot-dog stand", "a lantern", "a DOG\u00a0", "a doghouse", "dog_1"]
    content = "prompt;evaluation_seed\n" + "".join(f"{row};{number}\n" for number, row in enumerate(rows))
    policy, said = read_as(tmp_path, content, ["dog"])
    assert templates_of(policy) == {"dog": ("a {}", "a {}\u00a0")}
    assert (
        "2 of 7 rows" in said[0]
        and "5 rows are left out" in said[1]
        and "line 3: 'a photo of dogs'" in said[1]
    )


def test_a_name_is_found_in_however_it_is_written(tmp_path: Path) -> None:
    content = "Prompt, Evaluation_Seed\na portrait of BORIN  TALVEK,1\nRene\u0301 Dupont at home,2\n"
    policy, _ = read_as(tmp_path, content, ["Borin Talvek", "Ren\u00e9 Dupont"])
    assert templates_of(policy) == {
        "Borin Talvek": ("a portrait of {}",),
        "Ren\u00e9 Dupont": ("{} at home",),
    }


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("prompt,evaluation_seed\na dog,1\na dog and a lamp,2\n", r"other.csv:3: .*names 'dog' and 'lamp'"),
        ("prompt,evaluation_seed\na dog and a lantern,2\n", r"names 'dog' and 'lantern'"),
        ("prompt,evaluation_seed\na dog and a dog,2\n", r"must name 'dog' once"),
        ('prompt,evaluation_seed\n"a\ndog",1\na {} dog,2\n', r"other.csv:4: "),
        ("prompt,evaluation_seed\na dog,1_0\n", "evaluation_seed is '1_0'"),
        ("prompt,evaluation_seed\na dog,1.0\n", "evaluation_seed is '1.0'"),
        ("prompt,evaluation_seed\na dog,\u0661\n", "evaluation_seed is"),
        ("prompt,evaluation_seed\na dog,+1\n", "evaluation_seed is"),
        (f"prompt,evaluation_seed\na dog,{2**63}\n", "evaluation_seed is"),
        ("prompt,sd_seed\na dog,1\n", "no column 'evaluation_seed'; its header holds 'prompt', 'sd_seed'"),
        ("prompt,evaluation_seed\na cat,1\n", "no prompt for 'dog'; its first prompt is 'a cat'"),
    ],
)
def test_a_row_that_cannot_be_read_as_it_stands_is_refused(
    tmp_path: Path, content: str, sentence: str
) -> None:
    with pytest.raises(PolicyError, match=sentence):
        read_as(tmp_path, content, ["dog"])


def test_a_hundred_names_and_a_thousand_rows_are_read_at_once(tmp_path: Path) -> None:
    names = [f"person {chr(97 + one)}{chr(97 + two)}" for one in range(10) for two in range(10)]
    rows = "".join(f"a portrait of {name},{seed}\n" for seed in range(10) for name in names)
    policy, said = read_as(tmp_path, "prompt,evaluation_seed\n" + rows, names)
    assert len(policy.erase) == 100 and "1000 of 1000 rows" in said[0]


def test_a_sequential_comparison_is_refused(tmp_path: Path) -> None:
    document = short_policy().model_dump_json()
    file = tmp_path / "policy.yaml"
    file.write_text(document.replace('"domain":"people"', '"domain":"people","evaluation_seeds":[[1]]', 1))
    with pytest.raises(PolicyError, match="list of seeds for each prompt"):
        load_policy(file)
    with pytest.raises(ValueError, match="sequential: false"):
        compared(write(tmp_path, ROWS), sequential=True)
