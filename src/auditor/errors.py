"""Every error that auditor raises on purpose, and the exit code of each.

AuditorError                  5   something broke while measuring
├─ UsageError                 2   the command, its options or a file it names
│  └─ PolicyError             2   the policy: file, line and key are in the message
├─ RefusedError               4   the checkpoint is unsafe or malformed; it was not loaded
└─ PluginError                5   a plugin raised, or returned what its contract forbids

Ending                            no Exception: no ``except Exception`` of a plugin may swallow it
└─ InterruptedRunError  130/143   stopped by a signal; the same command goes on

The message is one sentence for a person, with the next step in it.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a process that ran ``auditor`` ended with."""

    PASS = 0
    FAIL = 1
    USAGE = 2
    INCONCLUSIVE = 3
    REFUSED = 4
    ERROR = 5


class AuditorError(Exception):
    """Something broke while measuring; no verdict can be given."""

    exit_code: int = ExitCode.ERROR


class UsageError(AuditorError):
    """The command, an option or a file that it names cannot be used."""

    exit_code = ExitCode.USAGE


class PolicyError(UsageError):
    """The policy cannot be used; the message names its file, line and key."""


class RefusedError(AuditorError):
    """The checkpoint is unsafe or malformed and was not loaded."""

    exit_code = ExitCode.REFUSED


class PluginError(AuditorError):
    """A plugin raised or broke its contract; the message names plugin and version."""


class Ending(BaseException):
    """What goes on ends here because the user, a signal or the policy says so. No ``except Exception`` of a
    plugin swallows it."""


ENDINGS = (KeyboardInterrupt, Ending)
"""What is let through where everything else that is raised becomes an error."""


class InterruptedRunError(Ending):
    """A signal stopped the run; everything measured so far is in the journal."""

    def __init__(self, signal_number: int) -> None:
        super().__init__("Stopped by a signal; run the same command again to go on from here.")
        self.exit_code: int = 128 + signal_number


_LONGEST = 2000  # characters: a message is one sentence, and may quote another


def said(error: BaseException) -> str:
    """What an exception says, as text that can be written: valid Unicode of at most 2000 characters, also
    where its own ``__str__`` raises."""
    try:
        text = str(error)
    except ENDINGS:
        raise
    except BaseException as own:  # noqa: BLE001
        text = f"(its message cannot be read: {type(own).__name__})"
    text = text.encode(errors="replace").decode()
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
