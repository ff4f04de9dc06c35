"""Training runs that go through the denoiser together: who, and that a run which lost weights trains the same
company again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import auditor
from auditor._audit.plan import make_plan
from auditor._audit.run.company import TrainingRun, companies
from auditor._diffusion.finetune import Training
from auditor._diffusion.together import Together
from auditor._journal.lines import ArmLine
from auditor.plugin.fine_tune import FineTune
from tests.conftest import SMALL, short_policy
from tests.faults.runs import lines_of, policy_file, timeless, weights_of

pytestmark = pytest.mark.usefixtures("nano")
LORA = Training("lora", 1e-3)
OPTIONS = {"candidates": "micro-people", "prompts": "paper-people", "names": 2, "images_per_prompt": 1}


USES: list[tuple[str, dict[str, object]]] = [
    ("in-domain", {}),
    ("out-of-domain", {}),
    *(("clip-tercile", {"tercile": number, "split": "given", "model": "micro"}) for number in (1, 2, 3)),
]


def probes(count: int, replicates: int = 1) -> list[dict[str, object]]:
    """So many LoRAs of one step."""
    common = OPTIONS | {"learning_rate": 1e-3, "batch": 2}
    return [
        {
            "use": use,
            "method": "lora",
            "doses": [1],
            "replicates": replicates,
            "options": common | more,
        }
        for use, more in USES[:count]
    ]


def who(trainings: Mapping[int, Training], count: int, **changes: object) -> list[list[int]]:
    """The probes of every company."""
    policy = short_policy(probes=probes(count), **changes)
    found = companies(make_plan(policy), trainings)
    assert all(run in group for run, group in found.items())
    return [[run.probe for run in group] for group in dict.fromkeys(found.values())]


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(1, [1]), (2, [1, 1]), (3, [2, 1]), (4, [2, 2]), (5, [3, 2])],
)
def test_companies_are_even_and_two_where_there_can_be(count: int, sizes: list[int]) -> None:
    assert [len(group) for group in who(dict.fromkeys(range(count), LORA), count)] == sizes


def test_no_more_than_three_go_together() -> None:
    policy = short_policy(probes=probes(2, replicates=4))
    found = dict.fromkeys(companies(make_plan(policy), {0: LORA, 1: LORA}).values())
    assert [len(group) for group in found] == [3, 3, 2]
    assert next(iter(found)) == (TrainingRun(0, 1), TrainingRun(0, 2), TrainingRun(0, 3))


def test_other_batches_and_ranks_are_other_companies_and_other_rates_are_not() -> None:
    alike = {
        0: LORA,
        1: replace(LORA, learning_rate=0.1),
        2: replace(LORA, rank=8),
        3: replace(LORA, batch=1),
    }
    assert who(alike | {1: LORA}, 4) == [[0], [1], [2], [3]]
    assert who({0: LORA, 1: alike[1], 2: LORA}, 4) == [[0, 1], [2]]


def test_where_fail_ends_the_run_the_first_is_not_kept_waiting() -> None:
    assert who(dict.fromkeys(range(4), LORA), 4, on_fail="stop") == [[0], [1, 2], [3]]


def test_what_trains_in_its_own_way_is_trained_alone() -> None:
    class Own(FineTune):
        """Another update."""

        name = "own"

        def choose(self, candidates: list[str], setting: object) -> list[str]:
            return candidates

        def update(self, update: object) -> object:  # type: ignore[override]
            return iter(())

    class Usual(Own):
        """Only another choice."""

        update = FineTune.update  # type: ignore[assignment]

    assert Own(Own.Options()).lora_training("lora") is None
    assert Usual(Usual.Options()).lora_training("full") is None
    assert Usual(Usual.Options(eight_bit=True)).lora_training("lora") is None
    assert Usual(Usual.Options(rank=2)).lora_training("lora") == Training("lora", 1e-4, rank=2)


@pytest.mark.parametrize("room", ["memory", "disk"])
def test_without_room_for_a_company_each_is_trained_alone(
    erased: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: str
) -> None:
    def full(*given: object) -> object:
        raise RuntimeError("CUDA out of memory")

    if room == "memory":
        monkeypatch.setattr(Together, "train", full)
    else:
        full_disk = shutil.disk_usage(tmp_path)._replace(free=0)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: full_disk)
    policy, out = policy_file(tmp_path, probes=probes(2), budget=SMALL), tmp_path / "run"
    report = auditor.audit(str(erased), policy, out, cache=tmp_path / "cache")
    arms = [line for line in lines_of(out) if isinstance(line, ArmLine) and line.fit]
    assert [line.company for line in arms] == [(), ()]
    assert {cell.images for cell in report.cells if cell.arm in {line.arm for line in arms}} == {10}
    assert any("each is trained alone" in warning for warning in report.provenance.warnings)
    said = [text for text in report.provenance.warnings if "no room to keep the weights of" in text]
    assert [any(f" {line.arm} (" in text for text in said) for line in arms] == [room == "disk"] * 2
    assert len(list(out.rglob("changed.safetensors"))) == (2 if room == "memory" else 0)


def test_weights_that_were_lost_are_trained_again_in_the_same_company(erased: Path, tmp_path: Path) -> None:
    policy, out = policy_file(tmp_path, probes=probes(3), budget=SMALL), tmp_path / "run"
    auditor.audit(str(erased), policy, out, cache=tmp_path / "cache")
    first, second, third = (line for line in lines_of(out) if isinstance(line, ArmLine) and line.company)
    assert first.company == second.company == (first.arm, second.arm)
    assert third.company == (third.arm,)
    whole, weights = timeless(out), weights_of(out)
    # as if it had been killed after the first of the two was drawn, and its arms had been lost
    journal = out / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    drawn = [number for number, line in enumerate(lines) if json.loads(line).get("arm") == second.arm]
    journal.write_text("".join(lines[: drawn[1]]))
    for name in (first, second):
        (out / "arms" / name.weights / "changed.safetensors").unlink()
    auditor.audit(str(erased), policy, out, cache=tmp_path / "cache")
    assert weights_of(out) == weights
    assert timeless(out) == whole
