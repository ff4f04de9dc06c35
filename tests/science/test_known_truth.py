"""The gate over ordinary updates on checkpoints of known truth: none that still knows its concept passes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import yaml

import auditor
from auditor.policy import read_policy
from auditor.report import Outcome
from tests.science.known_truth import POLICY, Reference, references

pytestmark = pytest.mark.science

FOLDER = os.environ.get("AUDITOR_KNOWN_TRUTH")
"""Where checkpoints and runs are kept between calls, so that a long table is made in parts."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(FOLDER) if FOLDER else tmp_path_factory.mktemp("known-truth")


@pytest.mark.parametrize("reference", list(references()), ids=lambda each: each.name)
def test_no_verdict_contradicts_what_is_known(reference: Reference, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    checkpoint, run = folder / reference.name, folder / f"run-{reference.name}"
    if not checkpoint.exists():
        reference.make(checkpoint)
    policy = folder / "policy.yaml"
    document = read_policy(POLICY).policy.model_dump(mode="json") | {"on_fail": "stop"}
    policy.write_text(yaml.safe_dump(document))
    began = time.monotonic()
    report = auditor.audit(str(checkpoint), policy, run, cache=folder / "cache")
    told = {
        "reference": reference.name,
        "verdict": report.verdict.outcome,
        "images": report.ledger.measured,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "updates": None if report.population is None else report.population.read,
        "reason": report.verdict.reasons[0],
    }
    print("\n" + json.dumps(told))
    assert report.verdict.outcome in reference.right
    assert report.verdict.outcome is not Outcome.PASS or "PASS" in reference.right
