"""``auditor fetch``."""

from __future__ import annotations

import click

from auditor._cli.output import echo, print_document
from auditor.errors import UsageError


@click.command("fetch")
@click.argument("source")
def command(source: str) -> None:
    """Bring SOURCE (hf://org/name[@revision][/file.safetensors]) into the Hub's cache, checked, so that an
    audit needs no network.

    Only the files that loading reads are fetched, at the commit that the revision points to now. Prints that
    commit: give it to the audit as hf://org/name@COMMIT with --offline.
    """
    from auditor._checkpoint.addresses import address_of, parse_hub_source
    from auditor._checkpoint.hub import fetch

    hub = parse_hub_source(source)
    if hub is None:
        raise UsageError(f"{source} is no hf://org/name[@revision][/file.safetensors].")
    snapshot = fetch(hub)
    print_document(address_of(hub, snapshot.commit))
    echo(f"{len(snapshot.expected)} files in {snapshot.folder}", err=True)
