"""``auditor report render``."""

from __future__ import annotations

from pathlib import Path

import click

from auditor.cli.options import plugin_files
from auditor.documents import parse_options


@click.group("report")
def command() -> None:
    """Work with the report of a run that is finished."""


@command.command("render")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--format", "form", required=True, help="A reporter: html, json, or one of a plugin.")
@click.option("--option", "pairs", multiple=True, help="KEY=VALUE for the reporter; may be given again.")
@plugin_files
def render(folder: Path, form: str, pairs: tuple[str, ...]) -> None:
    """Write the report of the run in FOLDER in another form, beside the others."""
    from auditor.auditing import judge_folder, write_form

    click.echo(write_form(judge_folder(folder), folder, form, parse_options(pairs)))
