"""The global state that a plugin sees: its own while it runs, ours again afterwards.

Each row of :data:`_PARTS` is one thing that code can change for the whole process: how it is read, how it is
put back, and the module that has to be imported for it to exist. Where a plugin is the first to import that
module, the thing is read right after the import, before the plugin can change it.
"""

from __future__ import annotations

import importlib.util
import locale
import os
import random
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from auditor.errors import ENDINGS
from auditor.plugin import _torch_state as torch_state

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Surroundings:
    """A context for one call, or for one step after the other: the plugin's own state is kept from one to the
    next. ``seed`` is what its global generators begin from."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._own: dict[str, Any] = {}
        self._ours: dict[str, Any] = {}
        self._finder = _FirstImports(self._ours)

    def __enter__(self) -> None:
        self._ours.clear()
        self._ours.update(_state())
        sys.meta_path.insert(0, self._finder)
        if self._own:
            _put_back(self._own)
        else:
            _sow(self._seed)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ValueError):  # whoever removed it wanted no such thing
            sys.meta_path.remove(self._finder)
        self._own = _state()
        # a signal that ends the run has put its handlers back already
        ended = isinstance(error, ENDINGS)
        _put_back({name: value for name, value in self._ours.items() if not (ended and name == "signals")})


def _sow(seed: int) -> None:
    """The same randomness for every call: a plugin that draws from the global generators is reproducible
    all the same."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def _state() -> dict[str, Any]:
    """What is there now, of modules that are imported: a plugin without torch must not need it."""
    modules = sys.modules
    return {name: part.read(modules[part.module]) for name, part in _PARTS.items() if part.module in modules}


def _put_back(state: dict[str, Any]) -> None:
    """Every part, also where one of them cannot be put back; then that is raised."""
    with ExitStack() as stack:
        for name, value in state.items():
            part = _PARTS[name]
            stack.callback(part.write, sys.modules[part.module], value)


@dataclass(frozen=True)
class _Part:
    module: str
    read: Callable[[Any], Any]
    write: Callable[[Any, Any], None]


def _folder(_: Any) -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # it was removed
        return None


def _put_folder(_: Any, folder: Path | None) -> None:
    if folder is not None and _folder(None) != folder:
        os.chdir(folder)


def _put_environment(_: Any, before: dict[str, str]) -> None:
    if os.environ == before:
        return
    zone = os.environ.get("TZ")
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
    if zone != before.get("TZ"):
        time.tzset()


def _umask(_: Any) -> int:
    os.umask(now := os.umask(0o077))  # it can only be asked for by setting it
    return now


def _put_umask(_: Any, before: int) -> None:
    os.umask(before)


def _put_warnings(_: Any, before: tuple[list[Any], Any]) -> None:
    filters, show = before
    if warnings.filters != filters:
        warnings.filters[:] = filters  # type: ignore[index]
        warnings._filters_mutated()  # type: ignore[attr-defined]
    warnings.showwarning = show


def _put_locale(_: Any, before: str) -> None:
    if locale.setlocale(locale.LC_ALL) != before:
        locale.setlocale(locale.LC_ALL, before)


def _put_signals(_: Any, before: Sequence[Any]) -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for number, handler in zip(_SIGNALS, before, strict=True):
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _put_streams(_: Any, before: Sequence[Any]) -> None:
    sys.stderr, sys.stdin, sys.displayhook, sys.excepthook = before


def _put_errors(numpy: Any, before: tuple[dict[str, str], Any]) -> None:
    modes, handler = before
    if numpy.geterr() != modes:
        numpy.seterr(**modes)
    if numpy.geterrcall() is not handler:
        numpy.seterrcall(handler)


def _attribute(module: str, name: str) -> _Part:
    """A plain global of a module."""
    return _Part(module, lambda found: getattr(found, name), lambda found, value: setattr(found, name, value))


_PARTS: dict[str, _Part] = {
    "signals": _Part("signal", lambda _: [signal.getsignal(each) for each in _SIGNALS], _put_signals),
    "generator": _Part("random", lambda _: random.getstate(), lambda _, state: random.setstate(state)),
    "folder": _Part("os", _folder, _put_folder),
    "environment": _Part("os", lambda _: dict(os.environ), _put_environment),
    "umask": _Part("os", _umask, _put_umask),
    "warnings": _Part("warnings", lambda _: (list(warnings.filters), warnings.showwarning), _put_warnings),
    "locale": _Part("locale", lambda _: locale.setlocale(locale.LC_ALL), _put_locale),
    "streams": _Part("sys", lambda _: (sys.stderr, sys.stdin, sys.displayhook, sys.excepthook), _put_streams),
    "recursion": _Part(
        "sys", lambda _: sys.getrecursionlimit(), lambda _, limit: sys.setrecursionlimit(limit)
    ),
    "patience of sockets": _Part(
        "socket", lambda _: socket.getdefaulttimeout(), lambda _, seconds: socket.setdefaulttimeout(seconds)
    ),
    "numpy's generator": _Part(
        "numpy",
        lambda numpy: numpy.random.get_state(),
        lambda numpy, state: numpy.random.set_state(state),
    ),
    "numpy's errors": _Part("numpy", lambda numpy: (numpy.geterr(), numpy.geterrcall()), _put_errors),
    "largest picture": _attribute("PIL.Image", "MAX_IMAGE_PIXELS"),
    "broken pictures": _attribute("PIL.ImageFile", "LOAD_TRUNCATED_IMAGES"),
    "torch's generators": _Part("torch", torch_state.generators, torch_state.put_generators),
    "torch's modes": _Part("torch", torch_state.modes, torch_state.put_modes),
    "torch's hooks": _Part("torch", torch_state.hooks, torch_state.put_hooks),
}


class _FirstImports(MetaPathFinder):
    """Reads a module's parts into ``state`` when it is imported for the first time."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state
        self._looking: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own spec, with a loader that reads its parts after it has run."""
        parts = {key: part for key, part in _PARTS.items() if part.module == name}
        if not parts or name in self._looking:
            return None
        self._looking.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._looking.discard(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRead(spec.loader, parts, self._state)
        return spec


class _ThenRead(Loader):
    """Loads as ``own`` does, and then reads."""

    def __init__(self, own: Loader, parts: dict[str, _Part], state: dict[str, Any]) -> None:
        self._own, self._parts, self._state = own, parts, state

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As its own loader does."""
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """As its own loader does; then its parts are read."""
        module.__loader__ = self._own
        if module.__spec__ is not None:
            module.__spec__.loader = self._own
        self._own.exec_module(module)
        for name, part in self._parts.items():
            self._state.setdefault(name, part.read(module))
