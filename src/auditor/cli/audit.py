"""``auditor audit``."""

from __future__ import annotations

from pathlib import Path

import click

from auditor.cli.options import plugin_files
from auditor.cli.terminal import exit_code_of, show_report, watch


@click.command("audit")
@click.argument("checkpoint")
@click.option("--policy", required=True, help="A policy file, or the name of a bundled one (micro-person).")
@click.option("--base", help="The checkpoint before erasure; overrides the policy's.")
@click.option("--offline", is_flag=True, help="Take repositories from the Hub's cache alone.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run; the same command goes on in it.")
@click.option("--cache", type=click.Path(path_type=Path), help="Where pictures of the base are kept between audits.")
@plugin_files
@click.pass_context
def command(ctx: click.Context, checkpoint: str, policy: str, base: str | None, offline: bool, out: Path, cache: Path | None) -> None:
    """Audit CHECKPOINT against a policy and give a verdict.

    CHECKPOINT is a diffusers folder, hf://org/name[@revision], or, over the base, a safetensors file: a whole model, a UNet, a
    LoRA or an eraser's changed tensors.
    """
    from auditor.auditing import audit

    with watch() as progress:
        report = audit(checkpoint, policy, out, base=base, offline=offline, cache=cache, progress=progress)
    show_report(report, out)
    ctx.exit(exit_code_of(report))
