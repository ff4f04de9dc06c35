"""Finds plugins and lists them: built-ins by module name, others by entry point or file, one try each, every
failure named.

pluggy alone stops loading at the first broken entry point without naming it; here a broken plugin is
recorded, and only a policy that asks for it fails. ``AUDITOR_LOAD_PLUGINS`` (distributions with commas
between, or ``none``) limits which installed distributions are looked at; files are loaded only when they are
named (``--plugin``), never from what is audited.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy
from pydantic import ValidationError

from auditor._files import entry_points as entries
from auditor._files.documents import sentence_of
from auditor._files.nearest import beside, listed
from auditor._files.relative_paths import folder_of_paths, relative_to
from auditor._process.machine import version_of
from auditor.errors import AuditorError, PluginError, PolicyError, UsageError
from auditor.plugin import API_VERSION, hookspecs
from auditor.plugin import _door as door
from auditor.plugin.contracts import (
    AnyProbe,
    Detector,
    Eraser,
    MaskSource,
    Metric,
    OptionsModel,
    Plugin,
    Reporter,
)

CONTRACTS: dict[str, type[Plugin]] = {
    "probes": AnyProbe,
    "detectors": Detector,
    "erasers": Eraser,
    "masks": MaskSource,
    "metrics": Metric,
    "reporters": Reporter,
}
KINDS = tuple(CONTRACTS)
SINGULAR = {kind: kind.removesuffix("s") for kind in KINDS}
"""``probes`` → ``probe``."""
OBSERVERS = ("auditor_run_started", "auditor_arm_ready", "auditor_batch_measured", "auditor_report_written")
_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MISSING = f"{entries.LOAD_ONLY} names it, and it is not installed or registers nothing."
_DISTRIBUTIONS = {
    "auditor-face": ("face",),
    "auditor-nsfw": ("open-nsfw",),
    "auditor-updates": (
        "merge-lora",
        "quantisation",
        "sequence",
        "textual-inversion",
        "weight-noise",
    ),
}
"""The plugins of ours that are installed apart."""
_files: list[Path] = []


@dataclass(frozen=True)
class PluginRecord:
    """One plugin, or one module that did not load (``error`` says why, ``plugin`` is None, ``kind`` is
    ``unknown``)."""

    kind: str
    name: str
    distribution: str
    version: str
    plugin: type[Plugin] | None
    error: str | None = None

    @property
    def origin(self) -> str:
        """Where it came from."""
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True)
class Observer:
    """A module that asked to be told of something."""

    origin: str
    hook: pluggy.HookRelay


@dataclass(frozen=True)
class Loaded:
    """Everything that was found."""

    records: tuple[PluginRecord, ...]
    observers: tuple[Observer, ...]


@functools.cache
def load_plugins() -> Loaded:
    """Every plugin on this machine: built-ins, then installed distributions in sorted order, then the
    files that were named."""
    records: list[PluginRecord] = []
    observers: list[Observer] = []
    modules: list[object] = []
    for load, distribution, release, name in _sources():
        try:
            with door.opened(f"The plugin module '{name}' ({distribution} {release})"):
                module = load()
                if any(module is other for other in modules):  # two entry points may lead to one
                    continue
                modules.append(module)
                found, observer = _collect(module, distribution, release)
        except AuditorError as error:
            _LOG.warning("%s %s: %s does not load: %s", distribution, release, name, error)
            records.append(PluginRecord("unknown", name, distribution, release, None, str(error)))
        else:
            records += found
            observers += observer
    return Loaded(tuple(_without_collisions(records)), tuple(observers))


def add_file(path: Path) -> None:
    """Load a plugin from a Python file that the user named. Raises :class:`UsageError` where it is none."""
    if not path.is_file():
        raise UsageError(f"There is no plugin file {path}.{beside(path)}")
    if path.resolve() not in _files:
        _files.append(path.resolve())
        load_plugins.cache_clear()
    broken = [
        record for record in load_plugins().records if record.distribution == path.name and record.error
    ]
    if broken:
        raise PluginError(f"The plugin file {path} cannot be used: {broken[0].error}")


def named_files() -> tuple[Path, ...]:
    """The files that :func:`add_file` was given."""
    return tuple(_files)


def _sources() -> Iterator[tuple[Callable[[], object], str, str, str]]:
    """(how to load it, distribution, version, name) of every module that may hold plugins."""
    own = version_of("auditor")
    for kind in KINDS:
        yield (
            functools.partial(importlib.import_module, f"auditor.builtins.{kind}"),
            "auditor",
            own,
            kind,
        )
    wanted = entries.wanted_distributions()
    for each in wanted:
        if each.error is not None:
            yield functools.partial(_broken, each.error), each.name, each.version, each.name
        for entry in sorted(each.entries, key=lambda entry: entry.name):
            yield functools.partial(_load_entry, entry), each.name, each.version, entry.name
    found = {entries.canonical(each.name) for each in wanted}
    for name in sorted((entries.chosen_distributions() or set()) - found):
        yield functools.partial(_broken, _MISSING), name, "not installed", name
    for path in _files:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        yield functools.partial(_load_file, path, digest), path.name, f"sha256:{digest[:16]}", path.stem


def _load_entry(entry: EntryPoint) -> object:
    if entry.group != entries.ENTRY_POINT_GROUP:
        spoken = entry.group.removeprefix("auditor.v") if "." in entry.group else "none"
        raise PluginError(
            f"it speaks API {spoken} (entry points '{entry.group}'), and this auditor speaks {API_VERSION}."
        )
    return entry.load()


def _broken(error: str) -> object:
    raise PluginError(error)


def _load_file(path: Path, digest: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"auditor_file_{digest[:16]}", path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is no Python file.")
    # where pydantic looks up annotations
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _collect(module: object, distribution: str, release: str) -> tuple[list[PluginRecord], list[Observer]]:
    manager = pluggy.PluginManager("auditor")
    manager.add_hookspecs(hookspecs)
    manager.register(module, name=distribution)
    manager.check_pending()
    found = []
    for kind in KINDS:
        for plugins in getattr(manager.hook, f"auditor_register_{kind}")():
            if not isinstance(plugins, list | tuple):
                raise PluginError(
                    f"auditor_register_{kind} returned {type(plugins).__name__}; a list of classes is right."
                )
            for plugin in plugins:
                problem = problem_of(kind, plugin)
                name = str(getattr(plugin, "name", plugin))
                if problem is None and "origin" not in vars(plugin):  # another may register it again
                    plugin.origin = f"{distribution} {release}"
                found.append(
                    PluginRecord(kind, name, distribution, release, None if problem else plugin, problem)
                )
    observes = any(getattr(manager.hook, name).get_hookimpls() for name in OBSERVERS)
    if not found and not observes:
        raise PluginError("it registers nothing: no function in it is marked as an auditor hook.")
    return found, [Observer(f"{distribution} {release}", manager.hook)] if observes else []


def problem_of(kind: str, plugin: object) -> str | None:
    """What keeps ``plugin`` from being a plugin of ``kind``, in a sentence; None where nothing does."""
    contract = CONTRACTS[kind]
    if not isinstance(plugin, type) or not issubclass(plugin, contract):
        return f"{plugin!r} is no subclass of {contract.__name__}."
    name = getattr(plugin, "name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"{plugin.__name__}.name is {name!r}; lower case, digits and hyphens are right."
    if not isinstance(getattr(plugin, "summary", None), str) or not plugin.summary.strip():
        return f"{plugin.__name__}.summary is missing: one line on what it is for."
    if inspect.isabstract(plugin):
        return f"{plugin.__name__} does not define {', '.join(sorted(plugin.__abstractmethods__))}."
    if not isinstance(plugin.Options, type) or not issubclass(plugin.Options, OptionsModel):
        return f"{plugin.__name__}.Options is no OptionsModel."
    if (unset := _unset(plugin)) is not None:
        return f"{plugin.__name__}.{unset} is not set; give it a value in the class."
    filename = getattr(plugin, "filename", "x")
    if kind == "reporters" and (not isinstance(filename, str) or Path(filename).name != filename):
        return f"{plugin.__name__}.filename is {filename!r}; a bare file name is right."
    return None


def _unset(plugin: type[Plugin]) -> str | None:
    """The first attribute that its contract declares and nothing gives a value."""
    home = Plugin.__module__.rpartition(".")[0]
    contracts = (one for one in plugin.__mro__ if one.__module__.startswith(home))
    declared = (name for one in contracts for name in inspect.get_annotations(one))
    return next((name for name in declared if not hasattr(plugin, name)), None)


def _without_collisions(records: list[PluginRecord]) -> Iterator[PluginRecord]:
    """A name is its first owner's where that is auditor itself; two others that claim the same name are
    both refused. One class that is registered twice is one plugin, its first owner's."""
    for number, record in enumerate(records):
        others = [r for r in records if r.plugin is not None and r.plugin is not record.plugin]
        rivals = [r for r in others if (r.kind, r.name) == (record.kind, record.name)]
        if record.plugin is not None and any(r.plugin is record.plugin for r in records[:number]):
            continue
        if record.plugin is None or not rivals or record.distribution == "auditor":
            yield record
        else:
            names = ", ".join(dict.fromkeys(rival.origin for rival in rivals))
            yield replace(
                record,
                plugin=None,
                error=f"its name, '{record.name}', is also that of a {SINGULAR[record.kind]} of {names}.",
            )


def broken_plugins() -> list[str]:
    """A sentence for everything that is installed or named and could not be used."""
    return [
        f"{record.name} ({record.origin}): {record.error}"
        for record in load_plugins().records
        if record.error
    ]


def find_plugin(kind: str, name: str) -> PluginRecord:
    """The plugin of ``kind`` called ``name``. Raises :class:`PolicyError` with what there is, and with
    what did not load."""
    records = [record for record in load_plugins().records if record.kind in (kind, "unknown")]
    match = next((record for record in records if record.name == name and record.plugin is not None), None)
    if match is None:
        broken = [f"{record.origin} ({record.error})" for record in records if record.error]
        hint = f" Did not load: {'; '.join(broken)}" if broken else ""
        hint += f" {limit}" if (limit := entries.limit_in_words()) else ""
        known = sorted(record.name for record in records if record.plugin is not None)
        raise PolicyError(f"There is no {SINGULAR[kind]} called '{name}'; {instead_of(name, known)}{hint}")
    return match


def instead_of(name: str, known: Sequence[str]) -> str:
    """What to do about a plugin that is not there: install the distribution of ours that has it, or the
    nearest of ``known``, and all of them."""
    ours = next((ours for ours, names in _DISTRIBUTIONS.items() if name in names), None)
    install = "" if ours is None else f"it comes with {ours}: pip install {ours}. "
    return f"{install}{listed(name, known, 'known')}"


def make_plugin(kind: str, name: str, options: dict[str, Any]) -> Any:
    """An instance of the plugin ``name`` with ``options`` checked against its model."""
    plugin = find_plugin(kind, name).plugin
    assert plugin is not None

    def make() -> Plugin:
        made = plugin(_checked(kind, plugin, options))
        made.given, made.given_in = options, folder_of_paths()
        return made

    return door.call(plugin, make)


def options_again(plugin: Plugin) -> OptionsModel:
    """The options of ``plugin`` checked anew: files that they are read from may hold something else by
    now."""
    kind = next(kind for kind, contract in CONTRACTS.items() if isinstance(plugin, contract))
    with relative_to(plugin.given_in):
        return door.call(plugin, _checked, kind, type(plugin), plugin.given or {})


def _checked(kind: str, plugin: type[Plugin], options: Mapping[str, Any]) -> OptionsModel:
    try:
        return plugin.Options.model_validate(options)
    except ValidationError as error:
        raise PolicyError(
            f"{SINGULAR[kind]} '{plugin.name}': {sentence_of(error.errors()[0], plugin.Options)}"
        ) from error
