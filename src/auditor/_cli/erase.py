"""``auditor erase``."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from auditor._cli.live import watch_steps
from auditor._cli.options import choices, chosen, device, offline, plugin_files
from auditor._cli.output import echo
from auditor._cli.terminal import show_erasure_plan


@click.command("erase")
@click.argument("base")
@click.option("--eraser", required=True, help="mace, esd, uce, or any installed eraser.")
@click.option(
    "--policy", required=True, help="Names the concepts to erase, their mappings, and what to keep."
)
@click.option("--out", type=click.Path(path_type=Path), help="New folder for the erased checkpoint.")
@click.option(
    "--options",
    "file",
    help="YAML file of the eraser's options, or a bundled one by name (micro-mace, paper-mace-celebrity-1).",
)
@click.option(
    "--option",
    "-o",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="One option; may be repeated, wins over --options.",
)
@click.option(
    "--save",
    type=click.Choice(["full", "delta"]),
    default="full",
    show_default=True,
    help="delta: changed tensors only.",
)
@click.option(
    "--reuse",
    type=click.Path(path_type=Path),
    help="An earlier result: LoRAs of its concepts are not trained again.",
)
@click.option("--over", help="The diffusers folder that BASE, a single file, lies over.")
@click.option("--dry-run", is_flag=True, help="Check everything and say what would be done.")
@click.option("--seed", type=int, default=0, show_default=True, help="What its random numbers begin from.")
@device
@offline
@choices
@plugin_files
def command(
    base: str,
    eraser: str,
    policy: str,
    out: Path | None,
    file: str | None,
    pairs: tuple[str, ...],
    save: str,
    reuse: Path | None,
    over: str | None,
    dry_run: bool,
    seed: int,
    offline: bool,
    prediction: str | None,
    components: dict[str, str],
) -> None:
    """Erase the policy's concepts from BASE.

    BASE is a diffusers folder, hf://org/name, 'micro', or a file over a folder (--over); it may be an erased
    checkpoint.

    Interrupted, the same command goes on: what was drawn and trained is kept beside OUT until it is whole.
    """
    from auditor._erase.erase import erase, plan_erasure
    from auditor._erase.job import read_options
    from auditor._erase.save import Save

    options, meant = read_options(file, pairs), chosen(prediction, components)
    if dry_run:
        show_erasure_plan(
            plan_erasure(
                base,
                policy,
                eraser,
                options=options,
                seed=seed,
                reuse=reuse,
                over=over,
                out=out,
                chosen=meant,
                offline=offline,
            )
        )
        return
    if out is None:
        raise click.UsageError("Missing option '--out'; --dry-run goes without.")
    with watch_steps(f"erasing with {eraser}") as on_step:
        folder = erase(
            base,
            policy,
            eraser,
            out,
            options=options,
            seed=seed,
            save=cast(Save, save),
            reuse=reuse,
            over=over,
            chosen=meant,
            offline=offline,
            on_step=on_step,
        )
    echo(f"Wrote {folder}")
