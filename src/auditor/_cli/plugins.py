"""``auditor plugins``, ``show``, ``new`` and ``check``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from auditor._cli.options import Commands, plugin_files
from auditor._cli.output import echo, keep_others_out, print_document
from auditor._files.entry_points import limit_in_words
from auditor.errors import UsageError
from auditor.plugin import contracts
from auditor.plugin._loader import KINDS, SINGULAR, PluginRecord, instead_of, load_plugins
from auditor.plugin.contracts import Plugin


@click.group("plugins", cls=Commands, invoke_without_command=True)
@click.option("--kind", type=click.Choice(KINDS), help="Only this kind.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", help="json: for programs."
)
@plugin_files
@click.pass_context
def command(ctx: click.Context, kind: str | None, form: str) -> None:
    """List the plugins on this machine, and the ones that did not load."""
    if ctx.invoked_subcommand is not None:
        return
    keep_others_out()
    records = [record for record in load_plugins().records if kind in (None, record.kind) or record.error]
    if form == "json":
        print_document(json.dumps([_row(record) for record in records], indent=2, ensure_ascii=False))
        return
    from auditor._cli.terminal import show_plugins

    show_plugins(records)


@command.command("show")
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), help="Where plugins of several kinds share the name.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", help="json: for programs."
)
@plugin_files
def show(name: str, kind: str | None, form: str) -> None:
    """Say what the plugin NAME is and which options it takes, with their defaults."""
    records = [
        record for record in load_plugins().records if record.name == name and kind in (None, record.kind)
    ]
    if not records:
        limit = limit_in_words()
        hint = f" {limit}" if limit else ""
        known = [each.name for each in load_plugins().records if each.plugin and kind in (None, each.kind)]
        raise UsageError(f"No plugin is called '{name}'; {instead_of(name, known)}{hint}")
    if form == "json":
        rows = [
            _row(record) | {"options": record.plugin.Options.model_json_schema() if record.plugin else None}
            for record in records
        ]
        print_document(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from auditor._cli.terminal import show_plugin

    for record in records:
        show_plugin(record)


@command.command("new")
@click.argument("kind", type=click.Choice(sorted(SINGULAR.values())))
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where the package goes. Default: a folder of its name here.",
)
def new(kind: str, name: str, out: Path | None) -> None:
    """Write a complete, installable package for a plugin of KIND called NAME; its tests pass at once."""
    from auditor.testing.scaffold import write_package

    folder = write_package(kind, name, out)
    at = shlex.quote(str(folder))
    echo(f"Wrote {folder}. Next:")
    checked = f"auditor plugins check auditor-{name}"
    for line in (f"cd {at}", "pip install -e '.[test]'", "python -m pytest", checked):
        echo(f"  {line}")


@command.command("check")
@click.argument("distribution")
@plugin_files
def check(distribution: str) -> None:
    """Say whether DISTRIBUTION (or a file given with --plugin) registers what it should; exit 5 where it
    does not."""
    from auditor.testing.distribution import check_distribution

    for sentence in check_distribution(distribution):
        echo(sentence)


def _row(record: PluginRecord) -> dict[str, Any]:
    plugin = record.plugin
    return {
        "kind": record.kind,
        "name": record.name,
        "distribution": record.distribution,
        "version": record.version,
        "summary": plugin.summary if plugin else None,
        "source": plugin.source if plugin else None,
        "needs_gpu": plugin.needs_gpu if plugin else None,
        "contract": _contract(plugin) if plugin else None,
        "error": record.error,
    }


def _contract(plugin: type[Plugin]) -> str:
    """The class of ours that it is made of."""
    return next(one.__name__ for one in plugin.__mro__ if one.__module__.startswith(contracts.__name__))
