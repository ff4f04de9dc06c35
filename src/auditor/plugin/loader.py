"""Finds plugins and lists them: built-ins by module name, others by entry point, one try each, every failure named.

pluggy alone stops loading at the first broken entry point without naming it; here a broken plugin is recorded, and only
a policy that asks for it fails.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from importlib.metadata import entry_points, version
from typing import Any

import pluggy
from pydantic import ValidationError

from auditor.documents import sentence_of
from auditor.errors import PolicyError, UsageError
from auditor.plugin import hookspecs
from auditor.plugin.contracts import Plugin

KINDS = ("probes", "detectors", "erasers", "reporters")
_BUILT_IN = tuple(f"auditor.{kind}" for kind in KINDS)
ENTRY_POINT_GROUP = "auditor"


@dataclass(frozen=True)
class PluginRecord:
    """One plugin, or one entry point that did not load (``error`` says why, ``plugin`` is None)."""

    kind: str
    name: str
    distribution: str
    version: str
    plugin: type[Plugin] | None
    error: str | None = None


@functools.cache
def load_plugins() -> tuple[PluginRecord, ...]:
    """Every plugin on this machine, built-ins first, then entry points in sorted order."""
    records: list[PluginRecord] = []
    for module in _BUILT_IN:
        records += _collect(importlib.import_module(module), "auditor", version("auditor"))
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: (entry.dist.name if entry.dist else "", entry.name)):
        distribution, release = (entry.dist.name, entry.dist.version) if entry.dist else ("unknown", "unknown")
        try:
            records += _collect(entry.load(), distribution, release)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the plugin door: whatever a stranger's module raises is recorded with its name
            records.append(PluginRecord("unknown", entry.name, distribution, release, None, f"{type(error).__name__}: {error}"))
    return tuple(records)


def _collect(module: object, distribution: str, release: str) -> list[PluginRecord]:
    manager = pluggy.PluginManager("auditor")
    manager.add_hookspecs(hookspecs)
    manager.register(module, name=distribution)
    manager.check_pending()
    found = []
    for kind in KINDS:
        for plugins in getattr(manager.hook, f"auditor_register_{kind}")():
            found += [PluginRecord(kind, plugin.name, distribution, release, plugin) for plugin in plugins]
    return found


def find_plugin(kind: str, name: str) -> PluginRecord:
    """The plugin of ``kind`` called ``name``. Raises :class:`UsageError` with what there is, and with what did not load."""
    records = [record for record in load_plugins() if record.kind in (kind, "unknown")]
    matches = [record for record in records if record.name == name and record.plugin is not None]
    if len(matches) > 1:
        raise UsageError(f"Two plugins are called '{name}': {', '.join(f'{m.distribution} {m.version}' for m in matches)}; uninstall one.")
    if not matches:
        broken = [f"{record.distribution} ({record.error})" for record in records if record.error]
        hint = f" Did not load: {'; '.join(broken)}." if broken else ""
        known = ", ".join(sorted(record.name for record in records if record.plugin is not None))
        raise PolicyError(f"There is no {kind.removesuffix('s')} called '{name}'; known: {known}.{hint}")
    return matches[0]


def make_plugin(kind: str, name: str, options: dict[str, Any]) -> Any:
    """An instance of the plugin ``name`` with ``options`` checked against its model."""
    plugin = find_plugin(kind, name).plugin
    assert plugin is not None
    try:
        return plugin(plugin.Options.model_validate(options))
    except ValidationError as error:
        raise PolicyError(f"{kind.removesuffix('s')} '{name}': {sentence_of(error.errors()[0], plugin.Options)}") from error
