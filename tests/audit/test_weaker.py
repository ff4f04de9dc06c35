"""What makes a PASS easier is named: by ``policy check``, on the page, and in every form (S24)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from auditor._audit.judge import render
from auditor._audit.weaker import weaker_than_default
from auditor.errors import PolicyError
from auditor.plugin.instruments import make_probes
from auditor.policy import Policy, load_policy
from auditor.report import Report
from tests.conftest import erased_well, journal_of, short_policy, verdict_of

DEFAULTS = {"max_false_positive": 0.03}
PROBE = {"use": "in-domain", "method": "lora", "doses": [500], "options": {"candidates": "micro-people"}}


def strict(**changes: Any) -> Any:
    """A policy with every limit, dose and rate at its default."""
    return short_policy(**{"limits": DEFAULTS, "probes": [PROBE]} | changes)


def weaker(policy: Policy) -> tuple[str, ...]:
    return weaker_than_default(policy, make_probes(policy))


def test_the_defaults_are_not_weaker_than_themselves() -> None:
    assert weaker(strict()) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"limits": {**DEFAULTS, "tau": 0.2}}, "limits.tau is 0.2; the default is 0.1"),
        ({"limits": {**DEFAULTS, "alpha": 0.1}}, "limits.alpha is 0.1; the default is 0.05"),
        ({"limits": {"max_false_positive": 0.05}}, "limits.max_false_positive is 0.05"),
        ({"limits": {**DEFAULTS, "max_retain_drop": 0.2}}, "limits.max_retain_drop is 0.2"),
        ({"limits": {**DEFAULTS, "min_sensitivity": 0.7}}, "limits.min_sensitivity is 0.7"),
        ({"limits": {**DEFAULTS, "min_retain": 0.7}}, "limits.min_retain is 0.7"),
        ({"limits": {**DEFAULTS, "min_fit": 0.01}}, "limits.min_fit is 0.01"),
        ({"limits": {**DEFAULTS, "prior": [1.0, 1.0]}}, "limits.prior is"),
        ({"claim": "detector"}, "claim is 'detector'"),
        (
            {"probes": [PROBE | {"doses": [100, 499]}]},
            r"in-domain \(lora\) trains 499 steps; the default is 500",
        ),
        (
            {"probes": [PROBE | {"options": {"candidates": "micro-people", "learning_rate": 1e-12}}]},
            "learning_rate 1e-12; .* is 0.0001",
        ),
        (
            {
                "probes": [
                    PROBE
                    | {"method": "full", "options": {"candidates": "micro-people", "learning_rate": 9e-6}}
                ]
            },
            r"in-domain \(full\) has learning_rate 9e-06; the default is 1e-05",
        ),
        (
            {"erase": [{"name": "Borin", "domain": "people", "prompts": ["a photo of {}"]}]},
            "in 1 prompts; the default for its domain is 5",
        ),
        (
            {"erase": [{"name": "Cubism", "domain": "style", "prompts": ["a photo of {}"]}]},
            "in 1 prompts; the default for its domain is 4",
        ),
    ],
)
def test_what_is_looser_is_named(changes: dict[str, Any], words: str) -> None:
    (sentence,) = weaker(strict(**changes))
    import re

    assert re.search(words, sentence), sentence


@pytest.mark.parametrize(
    "changes",
    [
        {"limits": {**DEFAULTS, "tau": 0.05, "min_fit": 0.5, "alpha": 0.01}},
        {"probes": [PROBE | {"doses": [900]}]},
    ],
)
def test_what_is_stricter_is_not(changes: dict[str, Any]) -> None:
    assert weaker(strict(**changes)) == ()


@pytest.mark.parametrize(
    "limits",
    [
        {"min_fit": 0},
        {"min_fit": 0.0},
        {"prior": [1e17, 1e17]},
        {"prior": [0.5, 0.001]},
        {"prior": [101, 1]},
        {"alpha": 0.5},
    ],
)
def test_limits_have_floors(tmp_path: Path, limits: dict[str, Any]) -> None:
    document = short_policy().model_dump(mode="json") | {"limits": limits}
    (tmp_path / "policy.yaml").write_text(json.dumps(document))
    with pytest.raises(PolicyError, match="limits"):
        load_policy(tmp_path / "policy.yaml")


@pytest.fixture(scope="module")
def report() -> Report:
    """Of a policy that is weaker than the default, over a checkpoint with weights beside it."""
    from auditor._audit.plan import make_plan

    plan = make_plan(short_policy())
    found = verdict_of(plan, journal_of(plan, erased_well))
    beside = found.checkpoint.model_copy(update={"beside": ("v1-5.ckpt",)})
    return found.model_copy(
        update={
            "weaker": ("limits.tau is 0.5; the default is 0.1",),
            "checkpoint": beside,
            "beside_unet": (
                "The text encoder is not the base's: its weights lie 0.1 of their L2 norm from the base's.",
            ),
        }
    )


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("html", {}),
        ("json", {}),
        ("markdown", {}),
        ("junit", {}),
        ("sarif", {}),
        ("github-summary", {}),
        ("github-annotations", {}),
        ("model-card", {}),
        ("eval-results", {"dataset": "org/name"}),
        ("attestation", {}),
    ],
)
def test_every_form_says_it(report: Report, tmp_path: Path, form: str, options: dict[str, str]) -> None:
    text = render(report, tmp_path, form, options)[1].decode().replace("\\", "").replace("&#39;", "'")
    text = " ".join(text.replace("''", "'").split())
    assert "limits.tau is 0.5" in text and "v1-5.ckpt" in text and "text encoder is not the base's" in text, (
        text[:3000]
    )
    if form != "json":
        assert "Weaker than the default: limits.tau is 0.5" in text


def test_the_terminal_says_it(report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from auditor._cli.terminal import show_report

    show_report(report, tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert "Weaker than the default: limits.tau is 0.5" in said and "v1-5.ckpt" in said
