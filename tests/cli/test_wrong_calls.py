"""A wrong call names the nearest right one, or the next step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from auditor._audit.cost import images_if_well
from auditor._audit.plan import make_plan
from auditor._cli import cli
from auditor._cli.policy import _listed
from auditor._files.bundled import bundled_names
from auditor._files.nearest import beside, listed, nearest
from auditor.errors import UsageError
from auditor.policy import load_policy
from tests.conftest import policy_file

CALLS = {
    "adit": "No such command 'adit'; did you mean 'audit'?",
    "polcy check x": "did you mean 'policy'?",
    "frobnicate": "commands: demo, inspect,",
    "policy chek x": "did you mean 'check'?",
    "policy lst": "did you mean 'list'?",
    "plugins shwo x": "did you mean 'show'?",
    "report rendr runs/one": "did you mean 'render'?",
    "audit micro --polcy micro-person --out x": "'--policy'",
    "audit micro --out x": "Missing option '--policy'",
    "audit micro --policy micro-persn --out x": "Did you mean 'micro-person'",
    "policy check micro_person": "Did you mean 'micro-person'",
    "policy check micro-person.yaml": "Did you mean 'micro-person'",
    "policy check gates.yaml": "Did you mean 'gate.yaml'",
    "policy explain nothing-like-it": "Bundled: illusion-curriculum, mace-celebrities-50,",
    "policy check policies/gate.yml": "Did you mean 'policies/gate.yaml'",
    "policy diff gate.yaml micro-prson": "Did you mean 'micro-person'",
    "policy check wrong.yaml": "did you mean 'clip-zero-shot'? Known: by-domain, clip-zero-shot",
    "policy check set.yaml": "did you mean 'paper-people'",
    "policy check nsfw.yaml": "pip install auditor-nsfw",
    "policy check limit.yaml": "unknown key 'limits.tua'; did you mean 'tau'?",
    "erase micro --eraser ucee --policy micro-person --out x": "did you mean 'uce'?",
    "erase micro --eraser mace --policy micro-person --out x --options micro-mce": "mean 'micro-mace'",
    "erase micro --eraser esd --policy micro-person --out x -o stepz=3": "did you mean 'steps'?",
    "audit erasd --policy micro-person --out x": "Did you mean 'erased'?",
    "audit ./runs/eraesd --policy micro-person --out x": "Did you mean 'runs/erased'?",
    "inspect nowhere-at-all": "give a folder, a safetensors file, hf://org/name, or 'micro'",
    "show runs": "Did you mean 'runs/one'?",
    "judge runs/on": "Did you mean 'runs/one'?",
    "audit micro --policy micro-person --out x --report junnit": "did you mean 'junit'?",
    "audit micro --policy micro-person --out x --baseline runs/one/reprt.json": "'runs/one/report.json'",
    "plugins show clip-zeroshot": "did you mean 'clip-zero-shot'",
    "plugins check auditr": "did you mean 'auditor'?",
    "policy check gate.yaml --plugin mine.pyy": "Did you mean 'mine.py'?",
    "policy init new.yaml --erase x --domain people --base erasd": "Did you mean 'erased'?",
    "policy init new.yaml --erase x --domain nudity --base micro": "needs another base",
    "policy init gate.yaml": "gate.yaml exists; give a new name.",
    "policy init new.yaml --base micro": "--domain is needed",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with a policy, a checkpoint's folder and a run's in it."""
    for folder in ("erased", "runs/one", "runs/erased", "policies"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("runs/one/manifest.json", "runs/one/report.json", "mine.py"):
        (tmp_path / file).write_text("{}")
    gate = policy_file(tmp_path).rename(tmp_path / "gate.yaml").read_text()
    (tmp_path / "policies" / "gate.yaml").write_text(gate)
    (tmp_path / "wrong.yaml").write_text(gate.replace("use: clip-zero-shot", "use: clip_zeroshot"))
    (tmp_path / "nsfw.yaml").write_text(gate.replace("use: clip-zero-shot", "use: open-nsfw"))
    (tmp_path / "limit.yaml").write_text(gate.replace("tau:", "tua:"))
    (tmp_path / "set.yaml").write_text(
        "version: 1\nbase: {source: micro}\nerase: [{name: x, domain: people, prompts: paper-poeple}]\n"
        "probes: [{use: in-domain}]\ndetectors: [{use: clip-zero-shot}]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDITOR_LOAD_PLUGINS", "none")  # what is installed beside auditor is of no account
    from auditor.plugin._loader import load_plugins

    load_plugins.cache_clear()
    yield
    load_plugins.cache_clear()


@pytest.mark.usefixtures("nano", "place")
@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_call_says_what_is_right(call: str) -> None:
    done = CliRunner().invoke(cli, call.split())
    error = done.exception
    said = done.output if isinstance(error, SystemExit) else str(error)
    code = done.exit_code if isinstance(error, SystemExit) else getattr(error, "exit_code", 5)
    assert code == 2, (said, error)
    assert CALLS[call] in said


def test_near_is_what_a_slip_makes() -> None:
    known = ("micro-person", "micro-people", "paper-celebrity-1", "uce", "mace")
    assert nearest("micro-persn", known)[0] == "micro-person"
    assert nearest("MICRO person", known)[0] == "micro-person"
    assert nearest("celebrity", known) == ["paper-celebrity-1"], "a part of a name"
    assert nearest("ucee", known) == ["uce"], "nothing that is far beside what is near"
    assert nearest("xyzzy", known) == []
    assert nearest("", known) == []
    assert listed("xyzzy", known[3:], "known") == "known: uce, mace."
    assert listed("uec", known[3:], "known").endswith("Known: uce, mace.")


def test_paths_are_looked_for_where_the_slip_is(tmp_path: Path) -> None:
    (tmp_path / "runs" / "erased").mkdir(parents=True)
    (tmp_path / "runs" / "erased" / "unet").mkdir()
    assert f"'{tmp_path}/runs/erased/unet'" in beside(tmp_path / "rnus" / "erased" / "unet")
    assert beside(tmp_path / "rnus" / "other" / "unet") == "", "a path that is not there either"
    assert beside(tmp_path / "zzz") == "" and beside("~nobody-of-this-name/x") == ""


def test_every_bundled_policy_is_listed() -> None:
    done = CliRunner().invoke(cli, ["policy", "list", "--no-images", "--format", "json"])
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert list(rows) == bundled_names()
    assert rows["micro-person"]["sentence"].startswith("One person of the micro world")
    assert "erased-celebrities.txt" in rows["paper-celebrities-100"]["missing"]
    assert all(row["sentence"] for row in rows.values())


def test_a_listed_policy_says_how_many_images_it_takes() -> None:
    row = _listed("micro-person", count=True)
    assert row["images"] == sum(images_if_well(make_plan(load_policy("micro-person"))).values()) > 100


def test_a_path_is_told_from_a_bundled_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as told:
        load_policy(tmp_path / "micro-person")
    assert "Bundled" not in str(told.value)
