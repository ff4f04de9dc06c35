"""What the pages tell people to type is what the program takes."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from auditor._cli import cli
from auditor._files.bundled import bundled_names
from auditor.policy import Policy

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def command_lines(page: str) -> Iterator[str]:
    """Lines of code blocks, and inline code, that begin with ``auditor``; ``…`` stands for anything."""
    text = (DOCS / page).read_text(encoding="utf-8").replace("\\\n", " ")
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield from (
            line.split("  #")[0].strip() for line in block.splitlines() if line.startswith("auditor ")
        )
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    yield from (" ".join(found.split()) for found in re.findall(r"`(auditor [a-z][^`]*)`", prose))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_line_is_one(page: str) -> None:
    for line in command_lines(page):
        context, (_, *words) = click.Context(cli, info_name="auditor"), shlex.split(line)
        command: click.Command = cli
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            found = command.get_command(context, words.pop(0))
            assert found is not None, f"{page}: {line}"
            command = found
        named = [word.split("=")[0] for word in words if word.startswith("-")]
        known = {name for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
        assert set(named) <= known, f"{page}: {line}"
        if not isinstance(command, click.Group):  # prose may leave out what is not its point
            command.make_context(command.name, [*words], resilient_parsing=True)


def test_most_pages_have_commands() -> None:
    assert sum(len(list(command_lines(page))) for page in PAGES) > 60


def test_every_bundled_policy_is_named() -> None:
    text = (DOCS / "how-to" / "policy.md").read_text(encoding="utf-8")
    assert not [name for name in bundled_names() if f"`{name}`" not in text]


@pytest.mark.parametrize("page", ["extend/lora-probe.md", "extend/classifier-detector.md"])
def test_every_whole_policy_is_one(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    (policy,) = re.findall(r"```yaml\n(# policy\.yaml\n.*?)```", text, re.DOTALL)
    Policy.model_validate_json(json.dumps(yaml.safe_load(policy)))
