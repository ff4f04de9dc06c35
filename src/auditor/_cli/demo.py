"""``auditor demo``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("demo")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder for everything it makes.",
)
def command(out: Path) -> None:
    """Erase the ship from the micro world with UCE in two ways, audit both, and show one page.

    The first comes undone, the second holds; the page is there after the first verdict. Ends with 0 when both
    audits ended with a verdict, whatever the verdicts.
    """
    from auditor._cli.demo_audits import run_demo

    run_demo(out)
