"""``auditor judge``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from auditor._cli.options import exit_zero, output_format, plugin_files, seal
from auditor._cli.terminal import exit_code_of, present
from auditor.errors import UsageError

if TYPE_CHECKING:
    from auditor.policy import Gate


@click.command("judge")
@click.argument("folder", type=click.Path(path_type=Path))
@output_format
@click.option("--gate", metavar="DETECTOR", help="Look at what another detector of the policy would decide.")
@click.option(
    "--decision",
    metavar="KEY=VALUE",
    help="Look at another decision: threshold=0.7, abstain=0.4,0.6 or vote=K:DETECTOR,DETECTOR.",
)
@exit_zero
@seal
@plugin_files
@click.pass_context
def command(
    ctx: click.Context,
    folder: Path,
    form: str,
    gate: str | None,
    decision: str | None,
    exit_zero: bool,
    seal: Path | None,
) -> None:
    """Judge the journal in FOLDER again, without any model, and write its report anew.

    With --gate or --decision nothing is written: what another decision would have found is shown, marked as
    exploratory, and it is never a PASS.
    """
    from auditor._audit.judge import judge_folder, judged
    from auditor._journal.seal import read_key

    key = None if seal is None else read_key(seal)
    if gate is None and decision is None:
        report = judge_folder(folder, key)
    else:
        report = judged(folder, key, _another(folder, gate, decision))
    present(report, folder, form)
    ctx.exit(exit_code_of(report, exit_zero=exit_zero))


def _another(folder: Path, detector: str | None, decision: str | None) -> Gate:
    """The gate that is asked for on the command line. Raises :class:`UsageError` where the run's policy knows
    no such detector, or the decision is none."""
    from pydantic import ValidationError

    from auditor._audit.run_folder.manifest import open_run
    from auditor.policy import Gate

    policy = open_run(folder).plan.policy
    asked = {"detector": detector, "decision": _decision(decision or "")}
    try:
        gate = Gate.model_validate(asked)
        type(policy).model_validate(dict(policy) | {"gate": gate})
    except ValidationError as error:
        message = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise UsageError(f"--gate or --decision: {message}.") from error
    if (gate.detector or policy.gate_detector, gate.decision) == (policy.gate_detector, policy.gate.decision):
        raise UsageError("--gate and --decision ask for what the policy decides by; leave them out.")
    return gate


def _decision(text: str) -> dict[str, object]:
    """``threshold=0.7`` as a policy writes it."""
    key, _, value = text.partition("=")
    try:
        match key:
            case "":
                return {}
            case "threshold":
                return {"threshold": float(value)}
            case "abstain":
                return {"abstain": [float(part) for part in value.split(",")]}
            case "vote":
                votes, _, names = value.partition(":")
                return {"vote": {"detectors": names.split(","), "at_least": int(votes)}}
    except ValueError as error:
        raise UsageError(f"--decision {text}: the numbers in it cannot be read.") from error
    raise UsageError(f"--decision {text}: give threshold, abstain or vote.")
