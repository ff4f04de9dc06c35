"""``auditor judge``."""

from __future__ import annotations

from pathlib import Path

import click

from auditor.cli.options import plugin_files
from auditor.cli.terminal import exit_code_of, show_report


@click.command("judge")
@click.argument("folder", type=click.Path(path_type=Path))
@plugin_files
@click.pass_context
def command(ctx: click.Context, folder: Path) -> None:
    """Judge the journal in FOLDER again, without any model, and write its report anew."""
    from auditor.auditing import judge_folder

    report = judge_folder(folder)
    show_report(report, folder)
    ctx.exit(exit_code_of(report))
