"""The one door that plugins are called through.

What they raise becomes an error that names plugin and version. What they print goes to standard error. The
global random generators are theirs, seeded, while they run, and are put back afterwards, with torch's
gradient mode, default type and number of threads, its arithmetic, its hooks for all modules and the working
folder. Who is silent for too long ends the process (:mod:`auditor._process.watchdog`).
"""

from __future__ import annotations

import os
import random
import sys
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from auditor._process.watchdog import WATCHDOG
from auditor.errors import AuditorError, PluginError, RefusedError
from auditor.plugin.contracts import Plugin

_P = ParamSpec("_P")
_T = TypeVar("_T")
_HOOKS = (
    "forward",
    "forward_pre",
    "backward",
    "backward_pre",
    "buffer_registration",
    "module_registration",
    "parameter_registration",
)


def call(plugin: Plugin | type[Plugin], method: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call ``method`` of ``plugin``; anything it raises that is not ours becomes a :class:`PluginError`."""
    with opened(title(plugin), _Surroundings()):
        return method(*args, **kwargs)


def iterate(plugin: Plugin, steps: Iterator[_T], seed: int = 0) -> Generator[_T, None, None]:
    """Go through what a plugin yields, one guarded step at a time; closed together with the plugin's own
    generator.

    ``seed`` is what the global generators begin from.
    """
    own = _Surroundings(seed)
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
            with opened(title(plugin), own):
                steps.close()


def title(plugin: Plugin | type[Plugin]) -> str:
    """How sentences call a plugin: by its name and where it came from."""
    # its own, not an ancestor's
    origin = vars(plugin if isinstance(plugin, type) else type(plugin)).get("origin")
    return f"The plugin '{plugin.name}' ({origin})" if origin else f"The plugin '{plugin.name}'"


@contextmanager
def opened(who: str, surroundings: _Surroundings | None = None) -> Iterator[None]:
    """The door itself, for calls of what is no :class:`Plugin` yet (modules, observers)."""
    surroundings = surroundings or _Surroundings()
    try:
        with WATCHDOG.watch(who), redirect_stdout(sys.stderr), surroundings:
            yield
    except AuditorError as error:
        if not isinstance(error, RefusedError):
            raise
        raise PluginError(f"{who}: {error}") from error  # what a plugin read is not the audited checkpoint
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise PluginError(
            f"{who} raised {type(error).__name__} at {last.filename}:{last.lineno}: {error}"
        ) from error


class _Surroundings:
    """The global state that a plugin sees: its own while it runs, kept from one step to its next; ours
    otherwise."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._own: dict[str, Any] = {}
        self._ours: dict[str, Any] = {}

    def __enter__(self) -> None:
        self._ours = _state()
        if self._own:
            _restore(self._own)
        else:
            _sow(self._seed)

    def __exit__(self, *error: object) -> None:
        self._own = _state()
        _restore(self._ours)


def _sow(seed: int) -> None:
    """The same randomness for every call: a plugin that draws from the global generators is reproducible
    all the same."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def _state() -> dict[str, Any]:
    """The random generators' states and torch's modes; only of what is imported: a plugin without torch
    must not need it."""
    state: dict[str, Any] = {"random": random.getstate(), "folder": Path.cwd()}
    if "numpy" in sys.modules:
        state["numpy"] = sys.modules["numpy"].random.get_state()
    if "torch" in sys.modules:
        torch: Any = sys.modules["torch"]
        state["torch"] = torch.get_rng_state()
        if torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state_all()
        state["modes"] = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
        state["precision"] = torch.get_float32_matmul_precision()
        state["exact"] = torch.are_deterministic_algorithms_enabled()
        state["hooks"] = [dict(hooks) for hooks in _hooks_of_all_modules()]
    return state


def _hooks_of_all_modules() -> list[dict[Any, Any]]:
    """torch's own tables of hooks that are called for every module of the process."""
    module: Any = sys.modules["torch"].nn.modules.module
    return [found for name in _HOOKS if (found := getattr(module, f"_global_{name}_hooks", None)) is not None]


def _restore(state: dict[str, Any]) -> None:
    random.setstate(state["random"])
    if Path.cwd() != state["folder"]:
        os.chdir(state["folder"])
    if "numpy" in state:
        sys.modules["numpy"].random.set_state(state["numpy"])
    if "torch" not in state:
        return
    torch: Any = sys.modules["torch"]
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
    if torch.get_float32_matmul_precision() != state["precision"]:
        torch.set_float32_matmul_precision(state["precision"])
    if torch.are_deterministic_algorithms_enabled() != state["exact"]:
        torch.use_deterministic_algorithms(state["exact"])
    for hooks, before in zip(_hooks_of_all_modules(), state["hooks"], strict=True):
        if hooks != before:
            hooks.clear()
            hooks.update(before)
    grad, dtype, threads = state["modes"]
    if torch.is_grad_enabled() != grad:
        torch.set_grad_enabled(grad)
    if torch.get_default_dtype() != dtype:
        torch.set_default_dtype(dtype)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
