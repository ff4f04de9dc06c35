"""``auditor demo``: one object, erased from the micro world in two ways, and what ordinary fine-tuning does
to each erasure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from auditor._audit.audit import audit
from auditor._cli.console import Terminal
from auditor._cli.live import watch, watch_steps
from auditor._cli.terminal import show_report
from auditor._erase.erase import erase
from auditor._erase.job import read_options
from auditor._files.places import refuse_unwritable
from auditor._files.whole_files import write_whole
from auditor._process.machine import elapsed
from auditor.builtins.reporters.html import environment
from auditor.builtins.reporters.pictures import grid, thumbnails
from auditor.errors import AuditorError
from auditor.report import Outcome, Report
from auditor.report.voice import folded, headline, next_box

POLICY = "micro-demo"
ERASURES = {"uce-ship": "UCE", "uce-ship-pushed": "UCE, pushed further"}
"""Bundled options of the eraser ``uce``, without ``micro-``, in the order in which they are audited."""


def run_demo(out: Path) -> None:
    """Erase, audit and compare; everything goes to ``out``, and the same call goes on where an earlier one
    stopped. The page is there as soon as the first verdict is."""
    began, console = time.monotonic(), Terminal(stderr=True, highlight=False)
    reports: dict[str, Report] = {}
    refuse_unwritable(out)
    page = out / "index.html"
    for name, title in ERASURES.items():
        folder, run = out / f"erased-by-{name}", out / f"audit-of-{name}"
        if not folder.exists():
            options = read_options(f"micro-{name}", ())
            with watch_steps(f"erasing with {title}") as on_step:
                erase("micro", POLICY, "uce", folder, options=options, on_step=on_step)
        with watch() as progress:
            reports[name] = audit(
                str(folder),
                POLICY,
                run,
                cache=out / "cache",
                progress=progress,
                title=f"the micro world, erased by {title}",
            )
        show_report(reports[name], run)
        write_whole(page, render_comparison(reports, out))
        if len(reports) < len(ERASURES):
            verdict = reports[name].verdict.outcome
            console.print(f"{verdict} after {elapsed(began)}. See {page}; the second audit begins.")
    if any(report.verdict.outcome is Outcome.ERROR for report in reports.values()):
        raise AuditorError("An audit of the demo ended with ERROR; its report says where.")
    console.print(f"Both audits ended with a verdict after {elapsed(began)}. Open {page}")


def render_comparison(reports: Mapping[str, Report], out: Path) -> bytes:
    """One page with the verdicts so far, their rates arm by arm, the pictures, and a link to each report."""
    rows = []
    concept = next(iter(reports.values())).cells[0].concept
    for name, report in reports.items():
        drawn = dict.fromkeys(cell.arm for cell in report.cells if cell.images)
        folder = out / f"audit-of-{name}"
        small = thumbnails(report.pictures, folder)
        rows.append(
            {
                "title": ERASURES[name],
                "report": report,
                "headline": headline(report),
                "reasons": folded(report)[0],
                "more": folded(report)[1],
                "next": next_box(report).sentences,
                "href": f"audit-of-{name}/report.html",
                "cells": {cell.arm: cell for cell in report.cells if cell.surface == concept},
                "arms": list(drawn),
                "grid": grid(report, report.pictures, concept, list(drawn), small)["rows"][:2],
            }
        )
    arms = dict.fromkeys(cell.arm for report in reports.values() for cell in report.cells)
    page = environment().get_template("demo.html.j2")
    return page.render(rows=rows, arms=list(arms), concept=concept).encode()
