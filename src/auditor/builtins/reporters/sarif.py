"""The report as SARIF 2.1.0: what keeps it from PASS, each at the policy's line that asks for it."""

from __future__ import annotations

import hashlib
import json
import posixpath
from pathlib import Path
from typing import Any

from auditor.plugin.contracts import Reporter
from auditor.report import Outcome, Report
from auditor.report.voice import HELP, RULES, Finding, findings, headline, next_box
from auditor.report.words import line, remarks

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_MOST = 5_000
_EXITS = {Outcome.PASS: 0, Outcome.FAIL: 1, Outcome.INCONCLUSIVE: 3, Outcome.ERROR: 5}


class Sarif(Reporter):
    """``report.sarif``: rule ids stay the same for ever, fingerprints for audits of one checkpoint against
    one policy."""

    name = "sarif"
    summary = "SARIF 2.1.0, for code scanning"
    filename = "report.sarif"

    def render(self, report: Report, folder: Path) -> bytes:
        """JSON; at most 5,000 results, which is what GitHub shows."""
        found = findings(report)
        rules = [
            {"id": name, "shortDescription": {"text": text}, "helpUri": HELP[name]}
            for name, text in RULES.items()
        ]
        driver = {
            "name": "auditor",
            "version": report.provenance.versions.get("auditor", "0"),
            "rules": rules,
        }
        outcome = report.verdict.outcome
        run = {
            "tool": {"driver": driver},
            "automationDetails": {"id": _category(report)},
            "invocations": [
                {"executionSuccessful": outcome is not Outcome.ERROR, "exitCode": _EXITS[outcome]}
            ],
            "results": [_result(report, finding) for finding in found[:_MOST]],
            "columnKind": "unicodeCodePoints",
            "properties": {
                "verdict": outcome.value,
                "headline": line(headline(report), 1000),
                "next": [line(text, 3000) for text in next_box(report).lines],
                "checkpointDigest": report.checkpoint.digest,
                "policyDigest": report.policy_digest,
                "remarks": [line(text, 3000) for text in remarks(report)],
                "resultsLeftOut": max(0, len(found) - _MOST),
            },
        }
        return (json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1) + "\n").encode()


def _category(report: Report) -> str:
    """What this audit is one of: an upload takes the place of the earlier ones of the same policy and
    checkpoint, and of no others. GitHub reads what stands before the last slash."""
    policy, source = report.policy_file, report.checkpoint.source
    named = source if "://" in source else posixpath.normpath(source).strip("/")
    chosen = [f"{what}={value}" for what, value in sorted(report.checkpoint.chosen.items())]
    return line(
        "/".join(["auditor", policy.path if policy else report.policy_digest, named, *chosen, ""]), 5000
    )


def _result(report: Report, finding: Finding) -> dict[str, Any]:
    names = list(RULES)
    file = report.policy_file
    place: dict[str, Any] = {"artifactLocation": {"uri": _uri(file.path if file else "policy.yaml")}}
    place["region"] = {"startLine": file.line_of(finding.concept) if file else 1}
    identity = f"{report.checkpoint.digest} {report.policy_digest} {finding.rule} {finding.key}"
    fingerprint = hashlib.sha256(identity.encode("utf-8", "replace")).hexdigest()
    return {
        "ruleId": finding.rule,
        "ruleIndex": names.index(finding.rule),
        "level": finding.severity,
        "message": {"text": line(finding.message, 1000)},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {
            "auditorFinding/v1": fingerprint,
            "primaryLocationLineHash": f"{fingerprint[:16]}:1",
        },
    }


def _uri(path: str) -> str:
    from urllib.parse import quote

    return quote(line(path).lstrip("/"))
