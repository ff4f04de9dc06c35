"""``auditor judge``."""

from __future__ import annotations

from pathlib import Path

import click

from auditor._cli.options import exit_zero, output_format, plugin_files, seal
from auditor._cli.terminal import exit_code_of, present


@click.command("judge")
@click.argument("folder", type=click.Path(path_type=Path))
@output_format
@exit_zero
@seal
@plugin_files
@click.pass_context
def command(ctx: click.Context, folder: Path, form: str, exit_zero: bool, seal: Path | None) -> None:
    """Judge the journal in FOLDER again, without any model, and write its report anew."""
    from auditor._audit.judge import judge_folder
    from auditor._journal.seal import read_key

    report = judge_folder(folder, None if seal is None else read_key(seal))
    present(report, folder, form)
    ctx.exit(exit_code_of(report, exit_zero=exit_zero))
