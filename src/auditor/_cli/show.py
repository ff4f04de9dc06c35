"""``auditor show``."""

from __future__ import annotations

from pathlib import Path

import click

from auditor._cli.options import output_format, plugin_files
from auditor._cli.terminal import present


@click.command("show")
@click.argument("path", type=click.Path(path_type=Path))
@output_format
@plugin_files
def command(path: Path, form: str) -> None:
    """Show the report in PATH, the folder of a run or a report.json; of a run that is not finished, what it
    would be by now.

    Always ends with 0: what a verdict means for a job is for 'audit' and 'judge' to say.
    """
    from auditor._audit.judge import judged
    from auditor.report.compare import read_report

    report = read_report(path) if path.is_file() or (path / "report.json").is_file() else judged(path)
    present(report, path, form)
