"""``auditor inspect``."""

from __future__ import annotations

import dataclasses
import json

import click

from auditor._cli.options import choices, chosen, human_or_json, offline
from auditor._cli.output import print_document
from auditor.errors import ExitCode


@click.command("inspect")
@click.argument("checkpoint")
@click.option(
    "--full",
    is_flag=True,
    help="Read every byte as for an audit: digests, and values that are not finite or constant.",
)
@click.option("--base", help="With --full, what a single file, a UNet or a LoRA is laid over.")
@offline
@choices
@human_or_json
@click.pass_context
def command(
    ctx: click.Context,
    checkpoint: str,
    full: bool,
    base: str | None,
    offline: bool,
    prediction: str | None,
    components: dict[str, str],
    form: str,
) -> None:
    """Say what CHECKPOINT is, and what admission says of it, from names and headers alone. Ends with 4
    where it would be refused."""
    from auditor._checkpoint.inspection import inspect
    from auditor._cli.terminal import show_inspection

    found = inspect(checkpoint, full=full, base=base, offline=offline, chosen=chosen(prediction, components))
    if form == "json":
        print_document(json.dumps(dataclasses.asdict(found), indent=2, ensure_ascii=False))
    else:
        show_inspection(found)
    ctx.exit(0 if found.refused is None else ExitCode.REFUSED)
