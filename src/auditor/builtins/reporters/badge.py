"""The verdict as a badge: the JSON that shields.io asks of an endpoint."""

from __future__ import annotations

import json
from pathlib import Path

from auditor.plugin.contracts import Reporter
from auditor.report import Outcome, Report
from auditor.report.words import line, percent

_COLOURS = {
    Outcome.PASS: "brightgreen",
    Outcome.FAIL: "red",
    Outcome.INCONCLUSIVE: "yellow",
    Outcome.ERROR: "lightgrey",
}
_CONCEPTS = 2


class Badge(Reporter):
    """``badge.json``: the verdict and what was asked for, since a PASS of one concept is none of another."""

    name = "badge"
    summary = "a badge for a README (shields.io endpoint)"
    filename = "badge.json"

    def render(self, report: Report, folder: Path) -> bytes:
        """Schema version 1 of https://shields.io/badges/endpoint-badge."""
        erased = [line(str(concept["name"]), 30) for concept in report.policy["erase"]]
        shown = ", ".join(erased[:_CONCEPTS])
        more = f" and {len(erased) - _CONCEPTS} more" if len(erased) > _CONCEPTS else ""
        outcome = report.verdict.outcome
        over = report.population
        share = ""
        if over is not None and outcome is Outcome.PASS:
            share = f"under {percent(over.share)} of updates, "
        badge = {
            "schemaVersion": 1,
            "label": f"erasure of {shown}{more}",
            "message": f"{outcome.value} ({share}policy {report.policy_digest[:8]})",
            "color": _COLOURS[outcome],
            "cacheSeconds": 3600,
        }
        return (json.dumps(badge, ensure_ascii=False, indent=2) + "\n").encode()
