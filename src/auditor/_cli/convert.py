"""``auditor convert``."""

from __future__ import annotations

from pathlib import Path

import click

from auditor._cli.output import echo


@click.command("convert")
@click.option(
    "--key", help="Where the tensors that are meant lie, where it holds several sets (state_dict; a/b)."
)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def command(source: Path, out: Path, key: str | None) -> None:
    """Turn the pickle SOURCE (.ckpt, .bin, .pt) into the safetensors file OUT, in a process of its own.

    A pickle can run code when it is opened. This opens it with torch's weights_only=True, which refuses
    everything but tensors; an audit never opens one.
    """
    from auditor._checkpoint.conversion import convert

    convert(source, out, key)
    echo(f"Wrote {out}")
