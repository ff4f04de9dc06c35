"""``auditor erase``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from auditor.cli.options import plugin_files
from auditor.cli.terminal import watch_steps


@click.command("erase")
@click.argument("base")
@click.option("--eraser", required=True, help="mace, esd, or any installed eraser.")
@click.option("--policy", required=True, help="Names the concepts to erase, their mappings, and what to keep.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New folder for the erased checkpoint.")
@click.option("--options", "file", help="YAML file of the eraser's options, or a bundled one by name (micro-mace, micro-esd).")
@click.option("--option", "-o", "pairs", multiple=True, metavar="KEY=VALUE", help="One option; may be repeated, wins over --options.")
@click.option("--seed", type=int, default=0, show_default=True)
@plugin_files
def command(base: str, eraser: str, policy: str, out: Path, file: str | None, pairs: tuple[str, ...], seed: int) -> None:
    """Erase the policy's concepts from BASE (a diffusers folder, or 'micro')."""
    from auditor.erasing import erase, read_options

    options: dict[str, Any] = read_options(file, pairs)
    with watch_steps(f"erasing with {eraser}") as on_step:
        folder = erase(base, policy, eraser, out, options=options, seed=seed, on_step=on_step)
    click.echo(f"Wrote {folder}")
