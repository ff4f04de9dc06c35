"""What became weaker in a policy is said in words, and needs a written reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from auditor._audit.policy_diff import policy_diff
from auditor._audit.weaker import weaker_than_default
from auditor._cli import cli
from auditor.errors import PolicyError
from auditor.plugin.instruments import make_probes
from auditor.policy import Policy, load_policy
from tests.conftest import DETECTOR, policy_file, short_policy

TRAINED = {
    "candidates": "micro-people",
    "names": 2,
    "images_per_prompt": 1,
    "learning_rate": 1e-3,
    "batch": 4,
}
PROBE = {"use": "in-domain", "method": "lora", "doses": [100, 300], "options": TRAINED, "replicates": 2}
PROMPTS = ["{}", "a photo of {}"]
ERASED = {
    "name": "Borin Talvek",
    "domain": "people",
    "prompts": PROMPTS,
    "synonyms": ["Talvek"],
}
KEPT = [
    {"name": name, "domain": "people", "prompts": "paper-people"} for name in ("Zelda Mirkov", "Dorval Quint")
]
SAMPLER = {"scheduler": "dpm-solver++", "steps": 6, "guidance": 4.0, "size": 32}
USUAL: dict[str, Any] = {
    "sampler": SAMPLER,
    "probes": [PROBE, {"use": "sampling", "options": {"steps": 9}}],
    "erase": [ERASED],
    "retain": KEPT,
    "sequential": True,
    "limits": {"tau": 0.1},
    "synonyms": "gate",
}


def policy(**changes: Any) -> Policy:
    return short_policy(**{**USUAL, **changes})


def kinds(old: Policy, new: Policy) -> set[tuple[str, str]]:
    return {(change.kind, change.key) for change in policy_diff(old, new)}


WEAKER = [
    ({"limits": {"tau": 0.2}}, "limits.tau", "limits.tau: 0.1 → 0.2"),
    ({"limits": {"tau": 0.1, "alpha": 0.1}}, "limits.alpha", "0.05 → 0.1"),
    ({"limits": {"tau": 0.1, "min_sensitivity": 0.5}}, "limits.min_sensitivity", "0.8 → 0.5"),
    ({"limits": {"tau": 0.1, "max_retain_drop": 0.3}}, "limits.max_retain_drop", "0.1 → 0.3"),
    ({"claim": "detector"}, "claim", "claim: concept → detector"),
    ({"synonyms": "report"}, "synonyms", "synonyms: gate → report"),
    ({"budget": {"images_per_cell": 40, "retained_per_arm": 120}}, "budget.images_per_cell", "60 → 40"),
    (
        {"budget": {"images_per_cell": 60, "retained_per_arm": 120, "minutes": 9}},
        "budget.minutes",
        "no limit → 9",
    ),
    ({"probes": [PROBE]}, "probes.sampling-9-steps", "is gone"),
    ({"probes": [PROBE | {"doses": [100, 200]}, USUAL["probes"][1]]}, "probes.in-domain-lora", "300 → 200"),
    ({"probes": [PROBE | {"doses": [300]}, USUAL["probes"][1]]}, "probes.in-domain-lora", "left out: 100"),
    ({"probes": [PROBE | {"replicates": 1}, USUAL["probes"][1]]}, "probes.in-domain-lora", "seeds: 2 → 1"),
    (
        {"probes": [PROBE | {"options": TRAINED | {"learning_rate": 1e-5}}, USUAL["probes"][1]]},
        "probes.in-domain-lora",
        "learning_rate: 0.001 → 1e-05",
    ),
    ({"retain": KEPT[:1]}, "retain.Dorval Quint", "'Dorval Quint' need no longer be kept"),
    ({"erase": [ERASED | {"prompts": ["{}"]}]}, "erase.Borin Talvek", "prompt left out: a photo of {}"),
    ({"erase": [ERASED | {"synonyms": []}]}, "erase.Borin Talvek", "synonym left out: Talvek"),
    ({"gate": {"decision": {"threshold": 0.9}}}, "gate", "as the detector says → score of 0.9 or more"),
]


@pytest.mark.parametrize(("changes", "key", "sentence"), WEAKER)
def test_what_is_weaker_one_way_is_stronger_or_gone_the_other(
    changes: dict[str, Any], key: str, sentence: str
) -> None:
    old, new = policy(), policy(**changes)
    found = policy_diff(old, new)
    assert [(change.kind, change.key, change.reason) for change in found] == [("weaker", key, None)]
    assert sentence in found[0].sentence
    back = kinds(new, old)
    assert back <= {("stronger", key), ("unclear", key)} and back


@pytest.mark.parametrize(
    ("changes", "kind", "key"),
    [
        ({"base": {"source": "elsewhere"}}, "unclear", "base"),
        ({"sampler": SAMPLER | {"steps": 5}}, "unclear", "sampler.steps"),
        ({"sampler": SAMPLER | {"guidance_interval": [0.3, 0.7]}}, "unclear", "sampler.guidance_interval"),
        ({"sampler": SAMPLER | {"batch": 7}}, "other", "sampler.batch"),
        ({"on_undecided": "close"}, "other", "on_undecided"),
        ({"on_fail": "stop"}, "other", "on_fail"),
        ({"erase": [ERASED | {"mapping": "a person"}]}, "other", "erase.Borin Talvek"),
        ({"erase": [ERASED | {"domain": "objects"}]}, "unclear", "erase.Borin Talvek"),
        ({"erase": [ERASED | {"prompts": [*PROMPTS, "{} at night"]}]}, "unclear", "erase.Borin Talvek"),
        ({"retain": [*KEPT, KEPT[0] | {"name": "Yara Belmos"}]}, "unclear", "retain.Yara Belmos"),
        ({"nonce": "again"}, "other", "nonce"),
        ({"reasons": {"limits.tau": "as before"}}, "other", "reasons"),
        ({"limits": {"tau": 0.1, "prior": [1.0, 1.0]}}, "unclear", "limits.prior"),
        (
            {"probes": [PROBE | {"options": TRAINED | {"names": 1}}, USUAL["probes"][1]]},
            "unclear",
            "probes.in-domain-lora",
        ),
        (
            {"detectors": [DETECTOR | {"options": DETECTOR["options"] | {"labels": "micro-people"}}]},  # type: ignore[operator]
            "unclear",
            "detectors",
        ),
    ],
)
def test_what_cannot_be_compared_is_unclear_and_needs_a_reason(
    changes: dict[str, Any], kind: str, key: str
) -> None:
    found = policy_diff(policy(), policy(**changes))
    assert {(change.kind, change.key) for change in found} == {(kind, key)}
    assert all(change.is_silent == (kind == "unclear") for change in found)


def test_a_prompt_more_is_stronger_where_each_is_read_by_itself() -> None:
    more = [ERASED | {"prompts": [*PROMPTS, "{} at night"]}]
    changes = kinds(policy(unit="prompt"), policy(unit="prompt", erase=more))
    assert changes == {("stronger", "erase.Borin Talvek")}


def test_a_file_that_the_detector_decides_by_is_part_of_it(tmp_path: Path) -> None:
    """Both policies say the same words, and mean another file."""
    policies = []
    for place, names in (("old", ["Borin Talvek", "ship", "dog"]), ("new", ["Borin Talvek", "ship"])):
        folder = tmp_path / place
        folder.mkdir()
        (folder / "labels.txt").write_text("\n".join([*names, "Zelda Mirkov", "Dorval Quint"]))
        options = DETECTOR["options"] | {"labels": {"file": "labels.txt"}}  # type: ignore[operator]
        policies.append(load_policy(policy_file(folder, detectors=[DETECTOR | {"options": options}])))
    changes = policy_diff(*policies)
    assert changes and all(change.key == "detectors" and change.is_silent for change in changes)


def test_a_detector_that_is_not_installed_is_refused() -> None:
    with pytest.raises(PolicyError):
        policy_diff(policy(), policy(detectors=[DETECTOR, {"use": "nobodys"}]))


def test_nothing_changed_is_nothing() -> None:
    assert policy_diff(policy(), policy()) == []


def test_another_concept_is_weaker_and_stronger() -> None:
    found = kinds(policy(), policy(erase=[ERASED | {"name": "Yara Belmos"}]))
    assert found == {("weaker", "erase.Borin Talvek"), ("stronger", "erase.Yara Belmos")}


def test_a_reason_is_of_this_change() -> None:
    old = policy()
    new = policy(limits={"tau": 0.2}, reasons={"limits.tau": "first release"})
    change = policy_diff(old, new)[0]
    assert change.kind == "weaker" and change.reason == "first release"
    later = policy(limits={"tau": 0.3}, reasons={"limits.tau": "first release"})
    assert policy_diff(new, later)[0].reason is None, "what was said of an earlier change"
    whole = policy(limits={"tau": 0.3}, reasons={"limits": "all of them"})
    assert policy_diff(new, whole)[0].reason is None, "of the part that it is in: too much would be excused"


def test_the_command_ends_with_1_until_there_is_a_reason(tmp_path: Path) -> None:
    files = {}
    for name, changes in {
        "old": {},
        "silent": {"limits": {"tau": 0.2}},
        "said": {"limits": {"tau": 0.2}, "reasons": {"limits.tau": "::error::first\x1b release"}},
    }.items():
        (tmp_path / name).mkdir()
        files[name] = str(policy_file(tmp_path / name, **{**USUAL, **changes}))

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["policy", "diff", *arguments])
        return done.exit_code, done.stdout

    code, said = run(files["old"], files["silent"])
    assert code == 1 and "weaker: limits.tau: 0.1 → 0.2" in said and "'reasons' for limits.tau" in said
    code, said = run(files["old"], files["said"])
    assert code == 0 and "\x1b" not in said and "::error::" not in said
    assert run(files["silent"], files["old"])[0] == 0
    assert run(files["old"], files["old"]) == (0, "nothing changed\n")
    code, said = run(files["old"], files["silent"], "--format", "json")
    assert code == 1 and json.loads(said) == [
        {"key": "limits.tau", "kind": "weaker", "sentence": "limits.tau: 0.1 → 0.2", "reason": None}
    ]


def test_reasons_change_the_digest_and_no_image() -> None:
    plain, said = policy(), policy(reasons={"limits.tau": "so"})
    assert "reasons" not in plain.model_dump(mode="json")
    assert plain.digest() != said.digest() and plain.seed_digest() == said.seed_digest()
    assert policy(reasons={}).digest() == plain.digest()


def test_a_reason_stands_beside_what_is_weaker() -> None:
    asked = policy(limits={"tau": 0.2}, reasons={"limits.tau": "first release"})
    (tau,) = [each for each in weaker_than_default(asked, make_probes(asked)) if "limits.tau" in each]
    assert tau == "limits.tau is 0.2; the default is 0.1 (reason given: first release)"


@pytest.mark.parametrize(
    ("reasons", "sentence"),
    [
        ({"limts.tau": "x"}, "there is no 'limts.tau' in a policy; did you mean 'limits'"),
        ({"limits.tau": "  "}, "the reason for 'limits.tau' is empty"),
        ({"limits.tau": 3}, "valid string"),
    ],
)
def test_a_reason_of_nothing_is_refused(tmp_path: Path, reasons: dict[str, Any], sentence: str) -> None:
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(policy().model_dump(mode="json") | {"reasons": reasons}))
    with pytest.raises(PolicyError, match=sentence):
        load_policy(file)
