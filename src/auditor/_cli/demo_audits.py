"""``auditor demo``: one person, erased from the micro world twice, and what ordinary fine-tuning does to
each erasure."""

from __future__ import annotations

import time
from pathlib import Path

from auditor._audit.audit import audit
from auditor._cli.live import watch, watch_steps
from auditor._cli.terminal import Terminal, show_report
from auditor._erase.erase import erase
from auditor._erase.job import read_options
from auditor._files.places import refuse_unwritable
from auditor._files.whole_files import write_whole
from auditor._process.machine import elapsed
from auditor.builtins.reporters.html import environment, grid, thumbnails
from auditor.errors import AuditorError
from auditor.report import Outcome, Report

POLICY = "micro-person"
ERASERS = {"esd": "ESD-u", "mace": "MACE"}


def run_demo(out: Path) -> None:
    """Erase, audit and compare; everything goes to ``out``, and the same call goes on where an earlier one
    stopped."""
    began, console = time.monotonic(), Terminal(stderr=True, highlight=False)
    reports: dict[str, Report] = {}
    refuse_unwritable(out)
    for eraser, title in ERASERS.items():
        folder = out / f"erased-by-{eraser}"
        if not folder.exists():
            with watch_steps(f"erasing with {title}") as on_step:
                erase(
                    "micro",
                    POLICY,
                    eraser,
                    folder,
                    options=read_options(f"micro-{eraser}", ()),
                    on_step=on_step,
                )
    for eraser, title in ERASERS.items():
        run = out / f"audit-of-{eraser}"
        with watch() as progress:
            reports[eraser] = audit(
                str(out / f"erased-by-{eraser}"),
                POLICY,
                run,
                cache=out / "cache",
                progress=progress,
                title=f"the micro world, erased by {title}",
            )
        show_report(reports[eraser], run)
    write_whole(out / "index.html", render_comparison(reports, out))
    if any(report.verdict.outcome is Outcome.ERROR for report in reports.values()):
        raise AuditorError("An audit of the demo ended with ERROR; its report says where.")
    console.print(f"Both audits ended with a verdict after {elapsed(began)}. Open {out / 'index.html'}")


def render_comparison(reports: dict[str, Report], out: Path) -> bytes:
    """One page with both verdicts, their rates arm by arm, the pictures, and a link to each report."""
    rows = []
    concept = next(iter(reports.values())).cells[0].concept
    for eraser, report in reports.items():
        arms = list(dict.fromkeys(cell.arm for cell in report.cells))
        folder = out / f"audit-of-{eraser}"
        rows.append(
            {
                "title": ERASERS[eraser],
                "report": report,
                "href": f"audit-of-{eraser}/report.html",
                "cells": report.cells,
                "arms": arms,
                "grid": grid(report, report.pictures, concept, arms, thumbnails(report.pictures, folder))[
                    "rows"
                ][:2],
            }
        )
    return environment().get_template("demo.html.j2").render(rows=rows, concept=concept).encode()
