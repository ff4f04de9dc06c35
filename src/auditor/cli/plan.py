"""``auditor plan``."""

from __future__ import annotations

import click

from auditor.cli.terminal import show_plan


@click.command("plan")
@click.argument("checkpoint", required=False)
@click.option("--policy", required=True, help="A policy file, or the name of a bundled one (micro-person).")
def command(checkpoint: str | None, policy: str) -> None:
    """Say what an audit would draw and what it would cost. No model is loaded; CHECKPOINT, if given, is admitted."""
    from auditor.plan import make_plan
    from auditor.policy import load_policy

    plan = make_plan(load_policy(policy))
    if checkpoint is not None:
        from auditor.checkpoint import open_checkpoint

        opened = open_checkpoint(checkpoint)
        click.echo(f"{checkpoint}: admitted, {opened.parameters / 1e6:.1f} M parameters, digest {opened.digest[:12]}")
    show_plan(plan)
