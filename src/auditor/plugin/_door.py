"""The one door that plugins are called through.

Whatever they raise becomes an error that names plugin and version, also what is no ``Exception``: a library
in Rust that panics, a task that was cancelled, ``SystemExit``. What the user, a signal or the policy ends
passes through. What they print goes to standard error. The global random generators are theirs, seeded, while
they run, and are put back afterwards, with the other global state (:mod:`auditor.plugin._surroundings`). Who
is silent for too long ends the process (:mod:`auditor._process.watchdog`).
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import ParamSpec, TypeVar

from auditor._process.watchdog import WATCHDOG
from auditor.errors import ENDINGS, AuditorError, PluginError, PolicyError, UsageError, said
from auditor.plugin._surroundings import Surroundings
from auditor.plugin.contracts import Plugin

_LOG = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")


def call(plugin: Plugin | type[Plugin], method: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call ``method`` of ``plugin``; anything it raises that is not ours becomes a :class:`PluginError`."""
    with opened(title(plugin), Surroundings()):
        return method(*args, **kwargs)


def iterate(plugin: Plugin, steps: Iterator[_T], seed: int = 0) -> Generator[_T, None, None]:
    """Go through what a plugin yields, one guarded step at a time; closed together with the plugin's own
    generator.

    What that raises when it is closed early is logged alone: it must not hide why it is closed. ``seed`` is
    what the global generators begin from.
    """
    own = Surroundings(seed)
    try:
        while True:
            with opened(title(plugin), own):
                try:
                    value = next(steps)
                except StopIteration:
                    return
                except TypeError as error:
                    if isinstance(steps, Iterator):
                        raise
                    raise PluginError(
                        f"{title(plugin)} returned {type(steps).__name__}, which yields nothing."
                    ) from error
            yield value
    finally:
        if isinstance(steps, Generator):
            try:
                with opened(title(plugin), own):
                    steps.close()
            except AuditorError as error:
                _LOG.warning("%s", error)


def title(plugin: Plugin | type[Plugin]) -> str:
    """How sentences call a plugin: by its name and where it came from."""
    # its own, not an ancestor's
    origin = vars(plugin if isinstance(plugin, type) else type(plugin)).get("origin")
    return f"The plugin '{plugin.name}' ({origin})" if origin else f"The plugin '{plugin.name}'"


@contextmanager
def opened(who: str, surroundings: Surroundings | None = None) -> Iterator[None]:
    """The door itself, for calls of what is no :class:`Plugin` yet (modules, observers)."""
    surroundings = surroundings or Surroundings()
    try:
        with WATCHDOG.watch(who), redirect_stdout(sys.stderr), surroundings:
            yield
    except ENDINGS:
        raise
    except BaseException as error:
        if isinstance(error, BaseExceptionGroup) and (ended := _first(error.subgroup(ENDINGS))):
            raise ended from error
        raise _as_ours(who, error) from error


def _as_ours(who: str, error: BaseException) -> AuditorError:
    """The error that what a plugin raised is: a wrong option or file is the user's to change, and anything
    else the plugin's own error."""
    if type(error) in (UsageError, PolicyError, PluginError, AuditorError):
        return type(error)(said(error))  # type: ignore[return-value]
    if isinstance(error, AuditorError):  # what a plugin read is not the audited checkpoint
        return PluginError(f"{who}: {said(error)}")
    last = traceback.extract_tb(error.__traceback__)[-1]
    return PluginError(f"{who} raised {type(error).__name__} at {last.filename}:{last.lineno}: {said(error)}")


def _first(error: BaseException | None) -> BaseException | None:
    """What a group of exceptions begins with, however deep."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
