"""The policy file: what is refused, and with which sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditor.errors import PolicyError, UsageError
from auditor.policy import Base, Policy, load_policy
from auditor.sets import bundled_policy

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


@pytest.mark.parametrize("name", ["micro-person", "micro-people", "micro-object", "micro-objects", "sd14-object", "sd14-object-gate"])
def test_bundled_policies_are_valid_and_found_by_name(name: str) -> None:
    assert bundled_policy(name) is not None
    assert load_policy(name).erase


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
        ("prompts: paper-people}\nretain", "prompts: paper-peeple}\nretain", r":4: .*no prompt set is called 'paper-peeple'"),
        ("prompts: paper-people}\nretain", "prompts: [a photo]}\nretain", r"needs exactly one \{\}"),
        ("name: Zelda Mirkov", "name: borin talvek", "stands twice among erase"),
        (
            "domain: people, prompts: paper-people}\nretain",
            "domian: people, prompts: paper-people}\nretain",
            r":4: unknown key 'erase.0.domian'; did you",
        ),
        ("version: 1", "version: 1\nversion: 1", r":2: not a valid document: the key 'version' stands twice"),
        ("version: 1", "version: 1\nlimits: {tau: .nan}", r":2: not a valid document: .nan is not a finite number"),
        ("version: 1", "version: 1\nlimits: {tau: 1.5}", r":2: 'limits.tau': input should be less than 1"),
        ("version: 1", "version: 1\nlimits: {tau: '0.1'}", r":2: 'limits.tau': input should be a valid number"),
        ("version: 1", "version: 1\nnonce: &a x\nbudget: {minutes: *a}", "aliases"),
        ("version: 1", "version: 1\nlimits: {prior: [0.5, 0]}", "'limits.prior.1': input should be greater than 0"),
        ("version: 1", "version: 1\nlimits: {max_false_positive: 0.9}", "max_false_positive must be below min_sensitivity"),
        ("version: 1", "version: [", "not a valid document"),
    ],
)
def test_a_bad_policy_gets_one_sentence_with_its_line(tmp_path: Path, old: str, new: str, sentence: str) -> None:
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
    larger = policy.model_copy(update={"budget": policy.budget.model_copy(update={"images_per_cell": 500}), "nonce": "x"})
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
