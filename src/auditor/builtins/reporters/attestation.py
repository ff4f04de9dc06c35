"""The report as an unsigned in-toto statement about the checkpoint, ready for any signer."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from auditor.builtins.reporters.json import Json
from auditor.plugin.contracts import Reporter
from auditor.report import Outcome, Population, Report, State
from auditor.report.words import gate_cells, line, published, remarks


class Attestation(Reporter):
    """``attestation.json``: a test-result predicate over the checkpoint's root digest, which OpenSSF model
    signing computes too."""

    name = "attestation"
    summary = "an unsigned in-toto test-result statement"
    source = "in-toto attestation framework, predicate test-result v0.1"
    filename = "attestation.json"

    def render(self, report: Report, folder: Path) -> bytes:
        """PASSED for a PASS and FAILED for everything else: a verifier must not take what was not shown for a
        success.

        Cells that held in an audit that showed nothing (a dead model's, for example) are no passed tests.
        """
        names: dict[State, list[str]] = {state: [] for state in State}
        for cell in gate_cells(report):
            names[cell.state or State.UNDECIDED].append(line(f"{cell.arm}: {cell.surface}"))
        if report.population is not None:
            names[report.population.state].append("over ordinary updates")
        shown = report.verdict.outcome in (Outcome.PASS, Outcome.FAIL)
        failed = [
            line(f"{c.name} on {c.arm}") for c in report.controls if c.decides == "PASS" and c.passed is False
        ]
        content = Json(self.options).render(report, folder)
        verdict: dict[str, object] = {"verdict": report.verdict.outcome.value}
        if found := remarks(report):
            verdict["remarks"] = [line(text, 3000) for text in found]
        if report.population is not None:
            verdict["over ordinary updates"] = _over_updates(report.population)
        passed = report.verdict.outcome is Outcome.PASS
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [
                {
                    "name": line(published(report.checkpoint.source)),
                    "digest": {"sha256": report.checkpoint.root_digest},
                }
            ],
            "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
            "predicate": {
                "result": "PASSED" if passed else "FAILED",
                "configuration": [
                    {"name": "policy", "digest": {"sha256": report.policy_digest}},
                    {
                        "name": "report.json",
                        "digest": {"sha256": hashlib.sha256(content).hexdigest()},
                        "annotations": verdict,
                    },
                ],
                "passedTests": names[State.HELD] if shown else [],
                "warnedTests": names[State.UNDECIDED] + ([] if shown else names[State.HELD]),
                "failedTests": names[State.FAILED] + failed,
            },
        }
        return (json.dumps(statement, indent=1) + "\n").encode()


def _over_updates(found: Population) -> dict[str, object]:
    """The share that is claimed, in numbers; bounds are null before an update was read."""
    lower, upper = found.bounds
    return {
        "state": found.state.value,
        "share of": found.over,
        "limit": found.share,
        "read": found.read,
        "unclean": found.unclean,
        "back": found.back,
        "lower": lower,
        "upper": upper,
    }
