"""The command line. Each command is a short file; torch is imported by the ones that need it, when they
run."""

from __future__ import annotations

import atexit
import functools
import importlib
import importlib.util
import logging
import os
import sys
import traceback
from contextlib import suppress
from typing import Any

import click

from auditor._cli.options import Commands
from auditor._cli.output import echo, keep_others_out, leave, settle
from auditor._files.entry_points import leave_out_broken_distributions
from auditor._files.places import NEEDS_POSIX, problem_at
from auditor.errors import AuditorError, ExitCode, InterruptedRunError, said

_INTERRUPTED = 130
_CODES = (ExitCode.USAGE, ExitCode.REFUSED, ExitCode.ERROR, _INTERRUPTED, 143)
"""What an error may end with: a plugin's own class may say 0 or 1."""

_COMMANDS = {
    "demo": "erase one object twice, audit both, show one page",
    "inspect": "say what a checkpoint is, without loading it",
    "fetch": "bring a checkpoint from the Hub into its cache",
    "convert": "turn a pickled checkpoint into safetensors",
    "erase": "make an erased checkpoint out of a base",
    "policy": "write a policy, check it, say what it asks for",
    "plan": "say what an audit would draw and what it would cost",
    "audit": "audit a checkpoint and give a verdict",
    "judge": "judge the journal of an earlier run again",
    "show": "show the report of a run",
    "runs": "list the runs below a folder, with an index page",
    "report": "a report in another form, two compared, one verified",
    "replay": "draw some images of an earlier run again and compare",
    "study": "measure a grid of erasures and probes: which come undone, by how much",
    "plugins": "list what is installed",
}


class _Commands(Commands):
    """Loads a command's module when it is called, so that ``--help`` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which they are needed."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, its module loaded now."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"auditor._cli.{cmd_name}").command
        return _keeping_others_out(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list for ``--help``, without loading any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _show_version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from auditor._process.machine import version_of

        echo(f"auditor, version {version_of('auditor')}")
        ctx.exit()


def _keeping_others_out(command: click.Command) -> click.Command:
    """``command``, which has standard output for itself while it runs; its help is printed before."""
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _keeping_others_out(each)
    elif command.callback is not None:
        run = command.callback

        @functools.wraps(run)
        def alone(*arguments: Any, **options: Any) -> Any:
            keep_others_out()
            return run(*arguments, **options)

        command.callback = alone
    return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show it."
)
@click.option("--debug", is_flag=True, help="Log what is done, and show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Does an erased concept stay gone? Audits text-to-image checkpoints for concept resurgence.

    Exit codes: 0 PASS, 1 FAIL, 2 usage or policy, 3 INCONCLUSIVE, 4 refused checkpoint, 5 error, 130/143
    interrupted.
    """
    ctx.obj = {"debug": debug}
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if debug:
        _log_to_standard_error(ctx)


def _log_to_standard_error(ctx: click.Context) -> None:
    """Until the command ends."""
    log = logging.getLogger("auditor")
    shown = logging.StreamHandler()
    shown.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s"))
    level = log.level
    log.setLevel(logging.DEBUG)
    log.addHandler(shown)
    ctx.call_on_close(lambda: log.setLevel(level))
    ctx.call_on_close(lambda: log.removeHandler(shown))


def _printable(text: str) -> str:
    """Names from a checkpoint must not drive a terminal or a CI's commands: one line, no control
    characters."""
    from auditor.report.words import harmless

    return harmless("".join(character if character.isprintable() else " " for character in text))


def main() -> None:
    """The entry point: errors become one sentence and their exit code."""
    if importlib.util.find_spec("fcntl") is None:
        echo(NEEDS_POSIX, err=True)
        raise SystemExit(ExitCode.USAGE)
    unended = [True]
    atexit.register(_end_with_5, unended)
    code: int | None = ExitCode.ERROR
    # Python itself ends with 1 or 0 for what is raised, which mean FAIL and PASS
    try:
        settle()
        leave_out_broken_distributions()
        code = _code()
        unwritten = leave()
        if unwritten is not None:
            _say(f"standard output could not be written: {unwritten.strerror}.")
        if code is None:  # what was printed is all that the command was for
            code = ExitCode.ERROR if unwritten is not None else 0
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BaseException as error:  # noqa: BLE001
        code = ExitCode.ERROR
        with suppress(Exception):
            _say(f"unexpected {type(error).__name__}")
    unended.clear()
    atexit.unregister(_end_with_5)
    raise SystemExit(code)


def _end_with_5(unended: list[bool]) -> None:
    """At the end of a process that got past :func:`main`."""
    if unended:
        os._exit(ExitCode.ERROR)


def _code() -> int | None:
    """The exit code that the command decided on; None where it came to its end without one."""
    debug = "--debug" in sys.argv
    try:
        code = cli.main(standalone_mode=False)  # without standalone mode click hands the exit code back
        return code if isinstance(code, int) else None
    except click.exceptions.Abort:
        return _INTERRUPTED
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except BaseException as error:  # noqa: BLE001
        if debug:
            traceback.print_exc()
        known = problem_at(error) if isinstance(error, OSError) else error
        if isinstance(known, AuditorError | InterruptedRunError):
            _say(said(known))
            return known.exit_code if known.exit_code in _CODES else ExitCode.ERROR
        _say(f"unexpected {type(error).__name__}: {said(error)} (--debug shows where)")
        return ExitCode.ERROR


def _say(sentence: str) -> None:
    """On standard error, where somebody reads that: a closed one changes no exit code."""
    with suppress(OSError, ValueError, AttributeError):
        echo(f"auditor: {_printable(sentence)}", err=True)
