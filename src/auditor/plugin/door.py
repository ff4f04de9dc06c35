"""The one door that plugins are called through: what they raise becomes a record with their name on it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Iterator
from typing import ParamSpec, TypeVar

from auditor.errors import AuditorError, PluginError
from auditor.plugin.contracts import Plugin

_P = ParamSpec("_P")
_T = TypeVar("_T")


def call(plugin: Plugin, method: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call ``method`` of ``plugin``; anything it raises that is not ours becomes a :class:`PluginError`."""
    try:
        return method(*args, **kwargs)
    except AuditorError:
        raise
    except (Exception, SystemExit) as error:
        raise _named(plugin, error) from error


def iterate(plugin: Plugin, steps: Iterator[_T]) -> Generator[_T, None, None]:
    """Go through what a plugin yields, one guarded step at a time; closed together with the plugin's own generator."""
    try:
        while True:
            try:
                value = next(steps)
            except StopIteration:
                return
            except AuditorError:
                raise
            except (Exception, SystemExit) as error:
                raise _named(plugin, error) from error
            yield value
    finally:
        if isinstance(steps, Generator):
            steps.close()


def _named(plugin: Plugin, error: BaseException) -> PluginError:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return PluginError(f"The plugin '{plugin.name}' raised {type(error).__name__} at {last.filename}:{last.lineno}: {error}")
