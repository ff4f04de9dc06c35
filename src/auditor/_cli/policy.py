"""``auditor policy init``, ``check``, ``explain`` and ``schema``."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from auditor._cli.options import plugin_files
from auditor._cli.output import echo, print_document
from auditor.errors import PolicyError, UsageError

if TYPE_CHECKING:
    from auditor._audit.cost import Cost
    from auditor._audit.plan import Plan


@click.group("policy")
def command() -> None:
    """Write, check and explain policies; no model is loaded."""


@command.command("init")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--erase", multiple=True, help="A concept that must be gone; may be given again.")
@click.option("--retain", multiple=True, help="A concept that must still be drawn; may be given again.")
@click.option("--domain", help="people, objects, or a word of yours.")
@click.option("--mapping", help="What the eraser maps the concepts to ('a person').")
@click.option("--base", help="The checkpoint before erasure: a folder, hf://org/name, or micro.")
@click.option(
    "--train",
    multiple=True,
    help="A concept to fine-tune on, for domains that no set is known of; give at least eight.",
)
@click.option(
    "--replicates",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Training seeds of each probe.",
)
@click.option(
    "--tau",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.10,
    show_default=True,
    help="The limit.",
)
def init(
    file: Path,
    erase: tuple[str, ...],
    retain: tuple[str, ...],
    domain: str | None,
    mapping: str | None,
    base: str | None,
    train: tuple[str, ...],
    replicates: int,
    tau: float,
) -> None:
    """Write a commented policy to FILE. In a terminal it asks for what no option gives."""
    from auditor._files.places import refuse_unwritable
    from auditor._files.whole_files import write_whole
    from auditor.policy import load_policy
    from auditor.policy.presets import new_policy

    if file.exists():
        raise UsageError(f"{file} exists; give a new name.")
    refuse_unwritable(file.parent)
    erase = erase or _ask("What was erased (names, separated by commas)?", "--erase")
    domain = domain or _ask("Are they people, objects, or what else?", "--domain")[0]
    retain = retain or _ask("What must still be drawn (at least three of the same kind)?", "--retain")
    base = base or _ask("Which checkpoint was it before (a folder, hf://org/name, or micro)?", "--base")[0]
    text = new_policy(erase, retain, domain, mapping, base, train, replicates, tau)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / file.name
        draft.write_text(text, encoding="utf-8")
        try:
            load_policy(draft)
        except PolicyError as error:
            raise UsageError(
                str(error).replace(f"{draft}:", "the policy would not be valid: line ")
            ) from error
    write_whole(file, text.encode())
    echo(f"Wrote {file}. Next: auditor policy check {file}")


def _ask(question: str, option: str) -> tuple[str, ...]:
    if not sys.stdin.isatty():
        raise UsageError(f"{option} is needed; in a terminal 'auditor policy init' asks for it.")
    answer = str(click.prompt(question))
    return tuple(part.strip() for part in answer.split(",") if part.strip())


@command.command("check")
@click.argument("file")
@click.option("--strict", is_flag=True, help="End with 2 where there is a warning.")
@plugin_files
def check(file: str, strict: bool) -> None:
    """Validate a policy, its plugins and their options; print its digest and what to know before trusting
    a PASS of it."""
    from auditor._audit.explain import warnings
    from auditor._audit.plan import make_plan
    from auditor.plugin.instruments import make_instruments
    from auditor.policy import read_policy
    from auditor.report.words import harmless, line

    given = read_policy(file)
    policy = given.policy
    plan = make_plan(policy, make_instruments(policy))
    found = list(warnings(plan))
    for warning in found:
        echo(f"warning: {harmless(line(warning, 2000))}")
    for sentence in given.rows:
        echo(f"prompts: {harmless(line(sentence, 5000))}")
    echo(
        f"valid: {len(plan.arms)} model states, {len(plan.gate_cells)} deciding checks, at most "
        f"{plan.images} images"
    )
    for plugin, named in plan.contents.items():
        for what, digest in named.items():
            if what.startswith("file ") or ": file " in what:
                echo(
                    harmless(line(f"{plugin} decides by {what}: sha256:{digest or 'nothing is there'}", 2000))
                )
    echo(f"digest: sha256:{policy.digest(plan.contents)}")
    if strict and found:
        raise PolicyError(f"{file}: {len(found)} warnings, and --strict was given.")


@command.command("explain")
@click.argument("file")
@click.option(
    "--cache", type=click.Path(path_type=Path), help="Where earlier audits left how quick this machine is."
)
@plugin_files
def explain_command(file: str, cache: Path | None) -> None:
    """Say in words what a policy demands, how many images and minutes it takes, and how likely a PASS is."""
    from auditor._audit.explain import explain
    from auditor._audit.plan import make_plan
    from auditor._audit.speed import kept_speed
    from auditor._process.device import device_kind
    from auditor._process.machine import default_cache
    from auditor.policy import load_policy
    from auditor.report.words import harmless, line

    plan = make_plan(load_policy(file))
    cost, place = _cost(plan), cache or default_cache()
    speed = None if cost is None else kept_speed(place, device_kind(), cost.call)
    for sentence in explain(plan, cost, speed):
        echo(harmless(line(sentence, 5000)))


def _cost(plan: Plan) -> Cost | None:
    """What the policy costs on its own base, if that is on this machine: an erased checkpoint has the same
    shape."""
    from auditor._audit.cost import forecast_cost
    from auditor._checkpoint import open_checkpoint
    from auditor.errors import AuditorError

    if plan.policy.base == "none":
        return None
    try:
        return forecast_cost(plan, open_checkpoint(plan.policy.base.address, offline=True))
    except (AuditorError, ValueError):
        return None


@command.command("schema")
def schema_command() -> None:
    """Print the JSON schema of policy files, for editors."""
    from auditor.policy.presets import schema

    print_document(json.dumps(schema(), indent=2))
