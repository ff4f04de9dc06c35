"""``auditor report render``, ``diff``, ``verify``, ``bundle`` and ``schema``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from auditor._cli.options import Commands, human_or_json, plugin_files, seal
from auditor._cli.output import echo, print_document
from auditor._files.documents import parse_options
from auditor.errors import AuditorError


@click.group("report", cls=Commands)
def command() -> None:
    """Work with the report of a run that is finished."""


@command.command("render")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    required=True,
    help="A reporter: html, markdown, junit, … ('auditor plugins --kind reporters').",
)
@click.option("--option", "pairs", multiple=True, help="KEY=VALUE for the reporter; may be given again.")
@click.option("--stdout", is_flag=True, help="Print it instead of writing a file.")
@plugin_files
def render_command(path: Path, form: str, pairs: tuple[str, ...], stdout: bool) -> None:
    """Write a report in another form, beside it; nothing else is written.

    PATH is the folder of a run, whose journal is judged again, or a report.json.
    """
    from auditor._audit.judge import judged, render, write_form
    from auditor.report.compare import read_report

    report = judged(path) if path.is_dir() else read_report(path)
    folder = path if path.is_dir() else path.parent
    if stdout:
        print_document(render(report, folder, form, parse_options(pairs))[1])
        return
    echo(write_form(report, folder, form, parse_options(pairs)))


@command.command("diff")
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@human_or_json
def diff_command(before: Path, after: Path, form: str) -> None:
    """Say what changed between two reports (folders of runs, or report.json files). Always ends with 0: it
    judges nothing."""
    from auditor.report.compare import diff, read_report

    changes = diff(read_report(before), read_report(after))
    if form == "json":
        print_document(json.dumps([change.__dict__ for change in changes], indent=2, ensure_ascii=False))
        return
    from auditor._cli.terminal import show_changes

    show_changes(changes)


@command.command("verify")
@click.argument("folder", type=click.Path(path_type=Path))
@seal
@plugin_files
def verify_command(folder: Path, seal: Path | None) -> None:
    """Check that the report in FOLDER follows from its journal and that its images are the ones that were
    scored.

    Ends with 0 where it does and with 5 where not. Whether the images were drawn from the checkpoint is what
    'auditor replay' shows.
    """
    from auditor._audit.verify import verify
    from auditor._journal.seal import read_key
    from auditor.report.words import harmless, line

    found = verify(folder, None if seal is None else read_key(seal))
    for problem in found.problems[:20]:
        echo(harmless(line(problem)), err=True)
    if found.problems:
        raise AuditorError(
            f"The report in {folder} does not verify: {len(found.problems)} problems, the first: "
            f"{found.problems[0]}"
        )
    compared = (
        f"only verdict and counts compared (auditor {found.version} wrote it); NOT compared: "
        f"{', '.join(found.left)}"
    )
    again = f"{', '.join(found.forms)} made again, byte for byte" if found.forms else compared
    echo(f"verified: {found.samples} samples, {found.images} images, the journal judged again, {again}")


@command.command("bundle")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The zip file; beside FOLDER, with its name.")
def bundle_command(folder: Path, out: Path | None) -> None:
    """Put a finished run into one zip file, without the weights of its model states.

    Whoever unpacks it can look at the page and run 'auditor report verify'. Only 'auditor replay' needs the
    weights.
    """
    from auditor._audit.bundle import LEFT_OUT, bundle
    from auditor._files.whole_files import on_disk

    place = out or folder.resolve().with_name(f"{folder.resolve().name}.zip")
    with on_disk(place.parent):
        files, size = bundle(folder, place)
    echo(f"Wrote {place}: {files} files, {size / 1e6:.1f} MB before packing, without {LEFT_OUT}/")


@command.command("schema")
def schema() -> None:
    """Print the JSON schema of report.json."""
    from auditor.report import Report

    print_document(json.dumps(Report.model_json_schema(mode="serialization"), indent=2))
