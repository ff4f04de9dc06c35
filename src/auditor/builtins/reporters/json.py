"""The report itself, as JSON."""

from __future__ import annotations

from pathlib import Path

from auditor.plugin.contracts import Reporter
from auditor.report import Report


class Json(Reporter):
    """``report.json``: what every other form is made from."""

    name = "json"
    summary = "the report, as JSON"
    filename = "report.json"

    def render(self, report: Report, folder: Path) -> bytes:
        """Indented JSON, the same bytes for the same report."""
        return (report.model_dump_json(indent=2) + "\n").encode()
