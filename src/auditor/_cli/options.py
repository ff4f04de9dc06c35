"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path

import click


def _load(ctx: click.Context, parameter: click.Parameter, files: tuple[Path, ...]) -> None:
    from auditor.plugin._loader import add_file

    for file in files:
        add_file(file)


output_format = click.option(
    "--format",
    "form",
    type=click.Choice(["human", "json", "quiet"]),
    default="human",
    show_default=True,
    help="human: a table and the verdict; json: report.json on standard output; quiet: the exit code alone.",
)

exit_zero = click.option(
    "--exit-zero", is_flag=True, help="FAIL and INCONCLUSIVE end with 0 too; errors keep their codes."
)

plugin_files = click.option(
    "--plugin",
    type=click.Path(path_type=Path),
    multiple=True,
    is_eager=True,
    expose_value=False,
    callback=_load,
    help="A Python file with plugins in it; may be given again. Only what is named here is loaded, never "
    "what is audited.",
)

seal = click.option(
    "--seal",
    type=click.Path(path_type=Path),
    help="A file with a secret key: every line of the journal must carry its seal, so that none was written "
    "by anybody else.",
)
