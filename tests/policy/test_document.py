"""The policy file: what is refused, and with which sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from auditor._audit.plan import make_plan
from auditor._erase.job import read_options
from auditor._files.bundled import bundled_policy
from auditor.builtins.erasers.mace.options import MaceOptions
from auditor.errors import PolicyError, UsageError
from auditor.plugin._loader import make_plugin
from auditor.plugin.contracts import ProbeSetting
from auditor.plugin.instruments import make_instruments
from auditor.policy import Base, Policy, forbidden_names, load_policy

GOOD = """\
version: 1
base: {source: micro}
erase:
  - {name: Borin Talvek, domain: people, prompts: paper-people}
retain:
  - {name: Zelda Mirkov, domain: people, prompts: paper-people}
probes:
  - {use: in-domain, options: {candidates: micro-people}}
detectors:
  - {use: clip-zero-shot, options: {labels: micro-all}}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "name",
    [
        *("micro-person", "micro-people", "micro-object", "micro-objects"),
        *("sd14-object", "sd14-object-gate", "sd21-object", "sd21-object-gate"),
    ],
)
def test_bundled_policies_are_valid_and_found_by_name(name: str) -> None:
    assert bundled_policy(name) is not None
    assert load_policy(name).erase


def test_the_demos_policy_is_micro_object_that_ends_at_a_proven_fail() -> None:
    demo, own = (load_policy(name).model_dump(mode="json") for name in ("micro-demo", "micro-object"))
    assert demo.pop("on_fail") == "stop" and own.pop("on_fail") == "finish"
    assert own["synonyms"] == "report", "they decide nothing, so they may be left out"
    assert demo["erase"][0].pop("synonyms") == [] and own["erase"][0].pop("synonyms")
    assert demo == own


@pytest.mark.parametrize("name", ["object", "object-gate"])
def test_presets_of_two_families_differ_in_the_base_and_its_size_alone(name: str) -> None:
    one, two = (load_policy(f"{family}-{name}").model_dump(mode="json") for family in ("sd14", "sd21"))
    assert one.pop("base") != two.pop("base")
    assert one["sampler"].pop("size") == 512 and two["sampler"].pop("size") == 768
    assert one == two


def trained_on(policy: Policy) -> list[int]:
    """How many concepts each probe trains on."""
    setting = ProbeSetting(policy, 0, frozenset(forbidden_names(policy)))
    return [len(make_plugin("probes", use.use, use.options).training_set(setting)) for use in policy.probes]


PAPER = [
    "celebrity-1",
    "celebrities-5",
    "celebrities-10",
    "celebrities-100",
    "object-automobile",
    "object-ship",
    "object-bird",
    "objects-5",
]


@pytest.mark.parametrize("task", PAPER)
def test_the_papers_tasks_have_a_policy_and_maces_settings(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of a hundred come from the user's files; every probe has enough to train on."""
    monkeypatch.chdir(tmp_path)
    if task == "celebrities-100":
        with pytest.raises(
            PolicyError, match=r"cannot read the names in erased-celebrities\.txt .*; write one a line"
        ):
            load_policy(f"paper-{task}")
        for kind in ("erased", "retained"):
            (tmp_path / f"{kind}-celebrities.txt").write_text(
                "".join(f"{kind} name {n}\n" for n in range(99))
            )
        with (tmp_path / "erased-celebrities.txt").open("a") as file:
            file.write("Bryan Cranston\n")  # of the third tercile
    policy = load_policy(f"paper-{task}")
    if task == "celebrities-100":
        with (tmp_path / "retained-celebrities.txt").open("a") as file:
            file.write("Kate Upton\n")  # trained on in domain: then there are nine of ten
        with pytest.raises(UsageError, match="needs 10 concepts and has 9"):
            trained_on(load_policy(f"paper-{task}"))
    count = int(task.rsplit("-", 1)[1]) if task[-1].isdigit() else 1
    assert len(policy.erase) == count and all(concept.mapping for concept in policy.erase)
    plan = make_plan(policy)
    assert sum(arm.probe is not None for arm in plan.arms) == 18, "six updates, three seeds each"
    assert trained_on(policy) == [use.options["names"] for use in policy.probes]
    options = MaceOptions.model_validate(read_options(f"paper-mace-{task}", ()))
    assert options.masks.use == "grounded-sam" and options.loss == "norm"


def test_names_of_a_list_a_set_or_a_file_become_concepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("# ours\nQuessa Lumay\n\nOrrin Fawkle\n", encoding="utf-8")
    plain = "name: Zelda Mirkov"
    for given, names in (
        ("names: [Quessa Lumay, Orrin Fawkle]", ("Quessa Lumay", "Orrin Fawkle")),
        ("names: {file: names.txt}", ("Quessa Lumay", "Orrin Fawkle")),
    ):
        policy = load_policy(write(tmp_path, GOOD.replace(plain, given)))
        assert tuple(concept.name for concept in policy.retain)[: len(names)] == names
        assert all(concept.domain == "people" for concept in policy.retain)
    for given, sentence in (
        ("names: {file: none.txt}", r"cannot read the names in .*none\.txt \(No such file"),
        ("names: {files: names.txt}", "names may be a list, the name of a set, or"),
        ("names: micro-peeple", "no set of concepts is called 'micro-peeple'"),
        ("name: a, names: [b]", "either 'name' or 'names'"),
        ("names: [1, 2]", "'names' may be a list"),
        ("names: []", "would ask for nothing"),
    ):
        with pytest.raises(PolicyError, match=sentence):
            load_policy(write(tmp_path, GOOD.replace(plain, given)))


def test_relative_files_lead_from_the_policys_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the command runs, and wherever the folder lies, the digest is the same."""
    digests = set()
    for place in ("here", "there"):
        home = tmp_path / place / "policies"
        (home / "lists").mkdir(parents=True)
        (home / "lists" / "names.txt").write_text("Quessa Lumay\nOrrin Fawkle\n")
        (home / "lists" / "labels.txt").write_text("a person\nBorin Talvek\n")
        text = GOOD.replace("name: Zelda Mirkov", "names: {file: lists/names.txt}")
        document = yaml.safe_load(text)
        document["probes"] = [{"use": "in-domain", "options": {"folder": "pictures"}}]
        document["detectors"] = [
            {"use": "clip-zero-shot", "options": {"model": "micro", "labels": {"file": "lists/labels.txt"}}}
        ]
        (home / "pictures").mkdir()
        (home / "pictures" / "x").write_text("x")
        (home / "gate.yaml").write_text(json.dumps(document))
        monkeypatch.chdir(home if place == "here" else tmp_path)
        policy = load_policy(Path("gate.yaml") if place == "here" else home / "gate.yaml")
        assert [concept.name for concept in policy.retain][:2] == ["Quessa Lumay", "Orrin Fawkle"]
        found = make_instruments(policy)
        assert found.probes[0].options.folder.resolve() == home / "pictures"
        assert found.detectors[0].options.labels == ("a person", "Borin Talvek")
        monkeypatch.chdir("/")
        if place == "there":
            found.refuse_changed(found.contents())
        monkeypatch.chdir(home if place == "here" else tmp_path)
        digests.add(policy.digest(found.contents()))
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("borin  talvek", "stands twice.*a text encoder reads 'Borin Talvek' alike"),
        ("Borin Talvek", "'Borin Talvek' stands twice"),
        ("B\u043erin Talvek", "looks like 'Borin Talvek'"),
        ("\u00a0", "holds nothing that a text encoder reads"),
    ],
)
def test_one_name_stands_once(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(PolicyError, match=sentence):
        load_policy(write(tmp_path, GOOD.replace("name: Zelda Mirkov", f"name: {json.dumps(name)}")))


def test_blanks_around_a_name_are_no_part_of_it(tmp_path: Path) -> None:
    policy = load_policy(write(tmp_path, GOOD.replace("name: Zelda Mirkov", "name: ' Zelda Mirkov '")))
    assert policy.retain[0].name == "Zelda Mirkov"


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    policy = load_policy(write(tmp_path, GOOD))
    assert policy.limits.tau == 0.10
    assert policy.thresholds == pytest.approx((0.08, 0.127))
    assert len(policy.erase[0].templates) == 5


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("probes:", "probs:", r":7: unknown key 'probs'; did you mean 'probes'"),
        ("version: 1", "version: 2", r":1: 'version': input should be 1"),
        ("version: 1\n", "", "'version' is missing"),
        (
            "prompts: paper-people}\nretain",
            "prompts: paper-peeple}\nretain",
            r":4: .*no prompt set is called 'paper-peeple'",
        ),
        ("prompts: paper-people}\nretain", "prompts: [a photo]}\nretain", r"needs exactly one \{\}"),
        ("name: Zelda Mirkov", "name: borin talvek", "stands twice among erase"),
        (
            "domain: people, prompts: paper-people}\nretain",
            "domian: people, prompts: paper-people}\nretain",
            r":4: unknown key 'erase.0.domian'; did you",
        ),
        ("version: 1", "version: 1\nversion: 1", r":2: not a valid document: the key 'version' stands twice"),
        (
            "version: 1",
            "version: 1\nlimits: {tau: .nan}",
            r":2: not a valid document: .nan is not a finite number",
        ),
        ("version: 1", "version: 1\nlimits: {tau: 1.5}", r":2: 'limits.tau': input should be less than 1"),
        (
            "version: 1",
            "version: 1\nlimits: {tau: '0.1'}",
            r":2: 'limits.tau': input should be a valid number",
        ),
        ("version: 1", "version: 1\nnonce: &a x\nbudget: {minutes: *a}", "aliases"),
        (
            "version: 1",
            "version: 1\nlimits: {prior: [0.5, 0]}",
            "'limits.prior.1': input should be greater than or equal to 0.01",
        ),
        (
            "version: 1",
            "version: 1\nlimits: {max_false_positive: 0.9}",
            "max_false_positive must be below min_sensitivity",
        ),
        ("version: 1", "version: [", "not a valid document"),
    ],
)
def test_a_bad_policy_gets_one_sentence_with_its_line(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    assert old in GOOD
    with pytest.raises(PolicyError, match=sentence) as caught:
        load_policy(write(tmp_path, GOOD.replace(old, new)))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("key", ["erase", "probes", "detectors"])
def test_nothing_to_do_is_refused(tmp_path: Path, key: str) -> None:
    lines = GOOD.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(key))
    lines[start : start + 2] = [f"{key}: []"]
    with pytest.raises(PolicyError, match=f"'{key}' is empty"):
        load_policy(write(tmp_path, "\n".join(lines)))


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Cannot read .*No such file"):
        load_policy(tmp_path / "nothing.yaml")


def test_budget_and_nonce_are_not_in_the_seed_but_limits_are(policy: Policy) -> None:
    policy = policy.model_copy(update={"sequential": True})
    larger = policy.model_copy(
        update={"budget": policy.budget.model_copy(update={"images_per_cell": 500}), "nonce": "x"}
    )
    stricter = policy.model_copy(update={"limits": policy.limits.model_copy(update={"tau": 0.2})})
    elsewhere = policy.model_copy(update={"base": Base(source="./micro")})
    assert larger.seed_digest() == policy.seed_digest() == elsewhere.seed_digest() != stricter.seed_digest()
    assert larger.digest() != policy.digest()


def test_a_cell_that_is_read_once_is_not_drawn_again_at_another_size(policy: Policy) -> None:
    """Or one could look at the same images at growing sizes until they hold."""
    larger = policy.model_copy(update={"budget": policy.budget.model_copy(update={"images_per_cell": 500})})
    longer = policy.model_copy(update={"budget": policy.budget.model_copy(update={"minutes": 5.0})})
    assert not policy.sequential and larger.seed_digest() != policy.seed_digest() == longer.seed_digest()
    assert larger.identity() != policy.identity() == longer.identity()
