"""The entry points through which installed distributions hand over plugins; nothing is imported here."""

from __future__ import annotations

import os
import re
from importlib.metadata import EntryPoint, entry_points

API_VERSION = 1
"""Of the hooks and contracts in :mod:`auditor.plugin`; an entry point declares it in its group
(``auditor.v1``)."""

ENTRY_POINT_GROUP = f"auditor.v{API_VERSION}"
LOAD_ONLY = "AUDITOR_LOAD_PLUGINS"


def all_entries() -> list[EntryPoint]:
    """Every entry point for any version of the plugin API."""
    groups = [group for group in entry_points().groups if re.fullmatch(r"auditor(\.v\d+)?", group)]
    return [entry for group in sorted(groups) for entry in entry_points(group=group)]


def chosen_distributions() -> set[str] | None:
    """The distributions that ``AUDITOR_LOAD_PLUGINS`` names, canonical; None where all are wanted."""
    wanted = os.environ.get(LOAD_ONLY)
    return None if wanted is None else {canonical(name) for name in wanted.split(",")} - {"", "none"}


def plugin_entries() -> list[EntryPoint]:
    """The entry points that are looked at, by distribution and name."""
    chosen = chosen_distributions()
    found = [
        entry for entry in all_entries() if chosen is None or canonical(distribution_of(entry)) in chosen
    ]
    return sorted(found, key=lambda entry: (distribution_of(entry), entry.name))


def distribution_of(entry: EntryPoint) -> str:
    """The name of the distribution that an entry point belongs to."""
    return entry.dist.name if entry.dist else "unknown"


def canonical(name: str) -> str:
    """A distribution's name as the packaging specifications compare it."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
