"""``auditor fetch``."""

from __future__ import annotations

import click

from auditor._cli.options import offline
from auditor._cli.output import echo, print_document
from auditor.errors import UsageError


@click.command("fetch")
@click.argument("source")
@offline
def command(source: str, offline: bool) -> None:
    """Bring SOURCE (hf://org/name[@revision][/file.safetensors]) into the Hub's cache, checked, so that an
    audit needs no network.

    Only the files that loading reads are fetched, at the commit that the revision points to now. Prints that
    commit: give it to the audit as hf://org/name@COMMIT with --offline. With --offline nothing is fetched:
    says which commit is in the cache.
    """
    from auditor._checkpoint.addresses import address_of, parse_hub_source
    from auditor._checkpoint.hub import fetch

    hub = parse_hub_source(source)
    if hub is None:
        raise UsageError(f"{source} is no hf://org/name[@revision][/file.safetensors].")
    snapshot = fetch(hub, offline=offline)
    print_document(address_of(hub, snapshot.commit))
    echo(f"{len(snapshot.expected)} files in {snapshot.folder}", err=True)
