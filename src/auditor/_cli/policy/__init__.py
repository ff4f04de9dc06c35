"""``auditor policy init``, ``check``, ``diff``, ``explain``, ``list`` and ``schema``."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from auditor._cli.options import Commands, human_or_json, plugin_files
from auditor._cli.output import echo, print_document
from auditor._cli.policy.init import command as init_command
from auditor.errors import PolicyError, UsageError

if TYPE_CHECKING:
    from auditor._audit.cost import Cost
    from auditor._audit.plan import Plan


@click.group("policy", cls=Commands)
def command() -> None:
    """Write, check, compare and explain policies; no model is loaded."""


command.add_command(init_command)


@command.command("check")
@click.argument("file")
@click.option("--strict", is_flag=True, help="End with 2 where there is a warning.")
@click.option("--allow-no-pass", is_flag=True, help="Do not end with 2 where no checkpoint could PASS.")
@plugin_files
def check(file: str, strict: bool, allow_no_pass: bool) -> None:
    """Validate a policy, its plugins and their options; print its digest and what to know before trusting
    a PASS of it. Ends with 2 where no checkpoint could PASS."""
    from auditor._audit.enough import no_pass, what_would_do
    from auditor._audit.explain import warnings
    from auditor._audit.plan import make_plan
    from auditor.plugin.instruments import make_instruments
    from auditor.policy import read_policy
    from auditor.report.words import harmless, line

    given = read_policy(file)
    policy = given.policy
    plan = make_plan(policy, make_instruments(policy))
    found = list(warnings(plan))
    if policy.base != "none":
        found += _missing(policy.base.address)
    for warning in found:
        echo(f"warning: {harmless(line(warning, 2000))}")
    for sentence in given.rows:
        echo(f"prompts: {harmless(line(sentence, 5000))}")
    echo(f"valid: {plan.size}, at most {plan.images} images")
    for plugin, named in plan.contents.items():
        for what, digest in named.items():
            if what.startswith("file ") or ": file " in what:
                echo(
                    harmless(line(f"{plugin} decides by {what}: sha256:{digest or 'nothing is there'}", 2000))
                )
    echo(f"digest: sha256:{policy.digest(plan.contents)}")
    if not allow_no_pass and (lost := no_pass(plan)):
        more = f" (and {len(lost) - 1} reasons more)" if len(lost) > 1 else ""
        raise PolicyError(
            f"{file}: no checkpoint could PASS it: {lost[0].removeprefix('PASS: ')}{more}. "
            f"{what_would_do(plan)} --allow-no-pass goes without."
        )
    if strict and found:
        raise PolicyError(f"{file}: {len(found)} warnings, and --strict was given.")


def _missing(base: str) -> list[str]:
    """The base, where nothing is there on this disk."""
    from auditor._checkpoint.located import refuse_missing

    try:
        refuse_missing(base)
    except UsageError as error:
        return [f"The base is missing here. {error}"]
    return []


@command.command("diff")
@click.argument("old")
@click.argument("new")
@human_or_json
@plugin_files
@click.pass_context
def diff_command(ctx: click.Context, old: str, new: str, form: str) -> None:
    """Say what NEW demands less, more or otherwise than OLD.

    Ends with 0 where nothing became weaker, or may have (unclear), or NEW gives a reason for all of it
    (reasons: {limits.tau: "…"}), and with 1 where it gives none.
    """
    from auditor._audit.policy_diff import policy_diff
    from auditor.policy import load_policy
    from auditor.report.words import harmless, line

    changes = policy_diff(load_policy(old), load_policy(new))
    silent = [change for change in changes if change.is_silent]
    if form == "json":
        print_document(json.dumps([change.__dict__ for change in changes], indent=2, ensure_ascii=False))
    else:
        for change in changes:
            because = f" (reason: {change.reason})" if change.reason else ""
            echo(harmless(line(f"{change.kind}: {change.sentence}{because}", 2000)))
        if not changes:
            echo("nothing changed")
        if silent:
            keys = ", ".join(dict.fromkeys(change.key for change in silent))
            said = f"weaker, or unclear, without a reason: give one in {new} under 'reasons' for {keys}"
            echo(harmless(line(said, 5000)))
    ctx.exit(1 if silent else 0)


@command.command("list")
@human_or_json
@click.option("--images/--no-images", default=True, help="Count the images, which takes some seconds.")
@plugin_files
def list_command(form: str, images: bool) -> None:
    """List the bundled policies: name, what they ask, images where all is well. Each is used by its name."""
    from auditor._files.bundled import bundled_names
    from auditor.report.words import harmless, line

    rows = []
    for name in bundled_names():
        rows.append(row := _listed(name, count=images))
        if form == "human":
            said = "" if row["images"] is None else f" ({row['images']} images where all is well)"
            said = f" (needs more: {row['missing']})" if row["missing"] else said
            echo(harmless(line(f"{name}: {row['sentence']}{said}", 1000)))
    if form == "json":
        print_document(json.dumps(rows, indent=2, ensure_ascii=False))


def _listed(name: str, *, count: bool) -> dict[str, str | int | None]:
    """A bundled policy; ``missing`` is what keeps it from being used as it is: a file of the user's own, a
    plugin."""
    from auditor._audit.cost import images_if_well
    from auditor._audit.plan import make_plan
    from auditor._files.bundled import bundled_policy
    from auditor.policy import load_policy

    file = bundled_policy(name)
    assert file is not None
    images, missing = None, None
    try:
        plan = make_plan(load_policy(name))
        images = sum(images_if_well(plan).values()) if count else None
    except UsageError as error:
        missing = str(error)
    return {"name": name, "sentence": _first_sentence(file), "images": images, "missing": missing}


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


def _first_sentence(file: Path) -> str:
    """Of the comment that a policy's file begins with, up to its first full stop that ends a line or a
    sentence."""
    lines = file.read_text(encoding="utf-8").splitlines()
    comment = itertools.takewhile(lambda each: each.startswith("#"), lines)
    text = " ".join(each.removeprefix("#").strip() for each in comment)
    return re.split(r"(?<=[a-z0-9)])\.(?: (?=[A-Z])|$)", text)[0]


@command.command("schema")
def schema_command() -> None:
    """Print the JSON schema of policy files, for editors."""
    from auditor.policy.presets import schema

    print_document(json.dumps(schema(), indent=2))
