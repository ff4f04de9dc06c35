"""``auditor audit``."""

from __future__ import annotations

from pathlib import Path

import click

from auditor._cli.live import watch
from auditor._cli.options import (
    choices,
    chosen,
    device,
    exit_zero,
    more_budget,
    offline,
    output_format,
    plugin_files,
    seal,
)
from auditor._cli.terminal import exit_code_of, present, show_changes


@click.command("audit")
@click.argument("checkpoint")
@click.option("--policy", required=True, help="A policy file, or the name of a bundled one (micro-person).")
@click.option(
    "--policy-digest",
    metavar="sha256:HEX",
    help="Go on only if the policy is the one with this digest ('auditor policy check').",
)
@click.option("--base", help="The checkpoint before erasure; overrides the policy's.")
@device
@offline
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the run; the same command goes on in it.",
)
@click.option(
    "--cache", type=click.Path(path_type=Path), help="Where pictures of the base are kept between audits."
)
@click.option(
    "--report", "forms", multiple=True, help="Another form to write (junit, sarif, …); may be given again."
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    help="An earlier report: say what changed. The verdict does not hang on it.",
)
@more_budget
@choices
@output_format
@exit_zero
@seal
@plugin_files
@click.pass_context
def command(
    ctx: click.Context,
    checkpoint: str,
    policy: str,
    policy_digest: str | None,
    base: str | None,
    offline: bool,
    out: Path,
    cache: Path | None,
    forms: tuple[str, ...],
    baseline: Path | None,
    images_per_cell: int | None,
    retained_per_arm: int | None,
    minutes: float | None,
    updates: int | None,
    prediction: str | None,
    components: dict[str, str],
    form: str,
    exit_zero: bool,
    seal: Path | None,
) -> None:
    """Audit CHECKPOINT against a policy and give a verdict.

    CHECKPOINT is a diffusers folder, hf://org/name[@revision], or, over the base, a safetensors file: a whole
    model, a UNet, a LoRA or an eraser's changed tensors.
    """
    from auditor._audit.audit import audit
    from auditor._audit.judge import write_forms
    from auditor.plugin._loader import make_plugin
    from auditor.policy import read_policy
    from auditor.report.compare import diff, read_report

    demanded = read_policy(policy)
    earlier = None if baseline is None else read_report(baseline)
    for name in forms:
        make_plugin("reporters", name, {})
    with watch(form) as progress:
        report = audit(
            checkpoint,
            demanded,
            out,
            policy_digest=policy_digest,
            offline=offline,
            cache=cache,
            progress=progress,
            base=base,
            seal=seal,
            chosen=chosen(prediction, components),
            budget={
                "images_per_cell": images_per_cell,
                "retained_per_arm": retained_per_arm,
                "minutes": minutes,
                "updates": updates,
            },
        )
    write_forms(report, out, forms)
    present(report, out, form)
    if earlier is not None and form == "human":
        show_changes(diff(earlier, report))
    ctx.exit(exit_code_of(report, exit_zero=exit_zero))
