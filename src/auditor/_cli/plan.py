"""``auditor plan``."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from auditor._cli.options import device, offline, plugin_files
from auditor._cli.output import echo
from auditor._cli.terminal import show_plan
from auditor.errors import UsageError


@click.command("plan")
@click.argument("checkpoint", required=False)
@click.option("--policy", required=True, help="A policy file, or the name of a bundled one (micro-person).")
@click.option(
    "--cache", type=click.Path(path_type=Path), help="Where earlier audits left how quick this machine is."
)
@click.option(
    "--calibrate",
    is_flag=True,
    help="Load CHECKPOINT, draw and train a little, and keep how quick this device is at it.",
)
@device
@offline
@plugin_files
def command(checkpoint: str | None, policy: str, cache: Path | None, calibrate: bool, offline: bool) -> None:
    """Say what an audit would draw, what it could show and what it would cost. CHECKPOINT, if given, is
    admitted. No model is loaded without --calibrate, except a small one for two seconds where nothing is
    known of this machine yet."""
    from auditor._audit.cost import forecast_cost
    from auditor._audit.plan import make_plan
    from auditor._audit.speed import can_be_measured, keep_speed, kept_speed, measured_speed
    from auditor._process.device import device_kind, device_said
    from auditor._process.machine import default_cache
    from auditor.policy import load_policy

    plan, cost, speed, place = make_plan(load_policy(policy)), None, None, cache or default_cache()
    if calibrate and checkpoint is None:
        raise UsageError("--calibrate needs a CHECKPOINT: how quick a device is hangs on the model.")
    if checkpoint is not None:
        from auditor._checkpoint import open_checkpoint

        opened = open_checkpoint(checkpoint, offline=offline)
        echo(f"device: {device_said()}")
        echo(
            f"{checkpoint}: admitted, {opened.parameters / 1e6:.1f} M parameters, digest {opened.digest[:12]}"
        )
        try:
            cost = forecast_cost(plan, opened)
            speed = None if calibrate else kept_speed(place, device_kind(), cost.call)
            if speed is None and (calibrate or can_be_measured(opened)):
                speed = measured_speed(plan, opened, cost.call)
                with contextlib.suppress(OSError):  # a cache that cannot be written is done without
                    keep_speed(place, speed)
        except ValueError as error:
            echo(f"what it costs is not known: {error}")
    show_plan(plan, cost, speed)
