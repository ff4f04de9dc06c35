"""``auditor plan``."""

from __future__ import annotations

from pathlib import Path

import click

from auditor._cli.options import offline, plugin_files
from auditor._cli.output import echo
from auditor._cli.terminal import show_plan


@click.command("plan")
@click.argument("checkpoint", required=False)
@click.option("--policy", required=True, help="A policy file, or the name of a bundled one (micro-person).")
@click.option(
    "--cache", type=click.Path(path_type=Path), help="Where earlier audits left how quick this machine is."
)
@offline
@plugin_files
def command(checkpoint: str | None, policy: str, cache: Path | None, offline: bool) -> None:
    """Say what an audit would draw, what it could show and what it would cost. No model is loaded;
    CHECKPOINT, if given, is admitted."""
    from auditor._audit.cost import forecast_cost, kept_rate
    from auditor._audit.plan import make_plan
    from auditor._process.machine import default_cache
    from auditor.policy import load_policy

    plan, cost = make_plan(load_policy(policy)), None
    if checkpoint is not None:
        from auditor._checkpoint import open_checkpoint

        opened = open_checkpoint(checkpoint, offline=offline)
        echo(
            f"{checkpoint}: admitted, {opened.parameters / 1e6:.1f} M parameters, digest {opened.digest[:12]}"
        )
        try:
            cost = forecast_cost(plan, opened)
        except ValueError as error:
            echo(f"what it costs is not known: {error}")
    show_plan(plan, cost, kept_rate(cache or default_cache()))
