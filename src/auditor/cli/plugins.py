"""``auditor plugins``."""

from __future__ import annotations

import json

import click

from auditor.plugin.loader import KINDS, load_plugins


@click.command("plugins")
@click.option("--kind", type=click.Choice(KINDS), help="Only this kind.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
def command(kind: str | None, form: str) -> None:
    """List the plugins on this machine, and the ones that did not load."""
    records = [record for record in load_plugins() if kind in (None, record.kind) or record.error]
    if form == "json":
        rows = [
            {
                "kind": record.kind,
                "name": record.name,
                "distribution": record.distribution,
                "version": record.version,
                "summary": record.plugin.summary if record.plugin else None,
                "source": record.plugin.source if record.plugin else None,
                "error": record.error,
            }
            for record in records
        ]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from auditor.cli.terminal import show_plugins

    show_plugins(records)
