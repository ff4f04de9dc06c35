"""``auditor runs``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from auditor._cli.options import human_or_json, plugin_files
from auditor._cli.output import echo, print_document
from auditor.errors import UsageError


@click.command("runs")
@click.argument("folder", type=click.Path(path_type=Path))
@human_or_json
@click.option(
    "--page",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write an index page too, for instance FOLDER/index.html; it links each run's page.",
)
@plugin_files
def command(folder: Path, form: str, page: Path | None) -> None:
    """List the runs below FOLDER: verdict, worst rate, checkpoint, policy, date.

    A folder that is broken or not finished is a row too, with a sentence. Always ends with 0 where there is a
    run: what a verdict means for a job is for 'audit' and 'judge' to say.
    """
    from auditor._audit.runs import runs_below
    from auditor._cli.terminal import show_runs
    from auditor._files.whole_files import write_whole
    from auditor.builtins.reporters.runs import index_page

    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: name one that has runs below it.")
    found = runs_below(folder)
    if not found:
        raise UsageError(f"There is no run below {folder}: 'auditor audit' writes one to its --out.")
    if page is not None:
        if page.is_dir():
            raise UsageError(f"{page} is a folder: name a file, for instance {page / 'index.html'}.")
        page.parent.mkdir(parents=True, exist_ok=True)
        write_whole(page, index_page(found, page.parent))
    if form == "json":
        print_document(json.dumps([run.row() for run in found], indent=2, ensure_ascii=False))
        return
    show_runs(found)
    if page is not None:
        echo(f"page: {page}")
