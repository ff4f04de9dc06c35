"""``auditor plan``."""

from __future__ import annotations

import contextlib
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
    """Say what an audit would draw, what it could show and what it would cost. CHECKPOINT, if given, is
    admitted. No model is loaded, except a small one for two seconds where nothing is known of this machine
    yet."""
    from auditor._audit.cost import call_cost, forecast_cost
    from auditor._audit.plan import make_plan
    from auditor._audit.speed import can_be_measured, keep_speed, kept_speed, measured_speed
    from auditor._process.machine import default_cache
    from auditor.policy import load_policy

    plan, cost, place = make_plan(load_policy(policy)), None, cache or default_cache()
    speed = kept_speed(place)
    if checkpoint is not None:
        from auditor._checkpoint import open_checkpoint

        opened = open_checkpoint(checkpoint, offline=offline)
        echo(
            f"{checkpoint}: admitted, {opened.parameters / 1e6:.1f} M parameters, digest {opened.digest[:12]}"
        )
        try:
            cost = forecast_cost(plan, opened)
            if speed is None and can_be_measured(opened):
                speed = measured_speed(plan, opened, call_cost(plan, opened))
                with contextlib.suppress(OSError):  # a cache that cannot be written is done without
                    keep_speed(place, speed)
        except ValueError as error:
            echo(f"what it costs is not known: {error}")
    show_plan(plan, cost, speed)
