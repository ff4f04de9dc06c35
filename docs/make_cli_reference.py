"""The reference of the command line, made from its click commands.

``mkdocs`` writes it into the site when that is built (``site_hooks.py``).
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from auditor._cli import cli

_HEAD = """# Every command

This page has every command of `auditor` with its arguments and options.

It is made from the code when the site is built. `auditor COMMAND --help` prints the same. What the exit codes
mean: [Exit codes](exit-codes.md).
"""


def cli_reference() -> str:
    """The whole page, Markdown."""
    return _HEAD + "".join(_command(context) for context in commands())


def commands() -> Iterator[click.Context]:
    """The program, every command, and every command below one, in the order of ``--help``."""
    yield from _below(click.Context(cli, info_name="auditor"))


def _below(context: click.Context) -> Iterator[click.Context]:
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            assert command is not None
            yield from _below(click.Context(command, info_name=name, parent=context))


def _command(context: click.Context) -> str:
    command = context.command
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    text = "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    found = f"\n## {context.command_path}\n\n{_harmless(text)}\n\n```\n{usage}\n```\n"
    records = [each.get_help_record(context) for each in command.params]
    rows = [(name, text) for name, text in filter(None, records) if text]
    if rows:
        found += "\n| option | meaning |\n|---|---|\n"
        found += "".join(f"| `{_cell(name)}` | {_harmless(_cell(text))} |\n" for name, text in rows)
    return found


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _harmless(text: str) -> str:
    """Brackets and angles are no Markdown."""
    for character in "[]<*":
        text = text.replace(character, "\\" + character)
    return text
