"""The index page of many runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from auditor._audit.runs import RunSummary
from auditor.builtins.reporters.html import environment
from auditor.report import Outcome


def index_page(runs: Sequence[RunSummary], folder: Path) -> bytes:
    """One page, which loads nothing, with a row a run; ``folder`` is where it will lie, so that it can link
    each run's page."""
    rows = [
        {
            "run": run,
            "href": quote(os.path.relpath(run.folder / "report.html", folder).replace(os.sep, "/")),
            "page": (run.folder / "report.html").is_file(),
        }
        for run in runs
    ]
    counts = {word.value: sum(run.verdict == word for run in runs) for word in Outcome}
    template = environment().get_template("runs.html.j2")
    broken = sum(run.verdict is None for run in runs)
    updates = any(run.updates is not None for run in runs)
    return template.render(rows=rows, counts=counts, broken=broken, updates=updates).encode()
