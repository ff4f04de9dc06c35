"""The entry points through which installed distributions hand over plugins; nothing is imported here.

Distributions are looked at one by one: one whose metadata cannot be read costs its own plugins and nothing
else.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, DistributionFinder, EntryPoint, MetadataPathFinder
from pathlib import PurePath

API_VERSION = 1
"""Of the hooks and contracts in :mod:`auditor.plugin`; an entry point declares it in its group
(``auditor.v1``)."""

ENTRY_POINT_GROUP = f"auditor.v{API_VERSION}"
LOAD_ONLY = "AUDITOR_LOAD_PLUGINS"
_GROUP = re.compile(r"auditor(\.v\d+)?")


@dataclass(frozen=True)
class Installed:
    """A distribution on this machine. ``error`` says why its metadata cannot be used; it then has no
    entries."""

    name: str
    version: str
    entries: tuple[EntryPoint, ...] = ()
    """For any version of the plugin API."""
    error: str | None = None


def installed() -> list[Installed]:
    """Every distribution that brings plugins, and every one of which that cannot be said; of two with one
    name the first on the path."""
    found: dict[str, Installed] = {}
    for place in dict.fromkeys(sys.path):
        try:
            there = list(_find(DistributionFinder.Context(path=[place])))
        except Exception:  # noqa: BLE001, S112 - no place that holds modules
            continue
        for distribution in there:
            each = _looked_at(distribution)
            if each is not None:
                found.setdefault(canonical(each.name), each)
    return [each for each in found.values() if each.entries or each.error]


def leave_out_broken_distributions() -> None:
    """For this process: what :mod:`importlib.metadata` finds is without the distributions whose metadata
    cannot be read. Other libraries read all of it when they are imported, and one broken folder stops
    them."""

    def found(context: DistributionFinder.Context = _EVERYTHING) -> Iterator[Distribution]:
        return (each for each in _find(context) if not _is_leftover(each) and _fault(each) is None)

    MetadataPathFinder.find_distributions = staticmethod(found)  # type: ignore[method-assign,assignment]


_EVERYTHING = DistributionFinder.Context()
_find = MetadataPathFinder.find_distributions


def _looked_at(distribution: Distribution) -> Installed | None:
    """None where it is nothing: what an interrupted uninstallation left, or a folder with a name alone."""
    stem = _folder(distribution).removesuffix(".dist-info").removesuffix(".egg-info")
    name, _, release = stem.partition("-")
    fault = _fault(distribution)
    try:
        entries = tuple(entry for entry in distribution.entry_points if _GROUP.fullmatch(entry.group))
    except Exception:  # noqa: BLE001 - the fault says it
        entries = ()
    else:
        if _is_leftover(distribution) or (fault and not entries):
            return None
    if fault:
        return Installed(name, release or "unknown", error=fault)
    return Installed(distribution.metadata["Name"], distribution.version, entries)


def _folder(distribution: Distribution) -> str:
    """The name of the folder with its metadata."""
    return PurePath(str(getattr(distribution, "_path", ""))).name


def _is_leftover(distribution: Distribution) -> bool:
    """What an interrupted uninstallation left begins with a tilde."""
    return _folder(distribution).startswith("~")


def _fault(distribution: Distribution) -> str | None:
    """What is wrong with a distribution's metadata, in a sentence."""
    try:
        list(distribution.entry_points)
    except Exception as error:  # noqa: BLE001 - whatever reading foreign metadata raises
        return f"its entry_points.txt cannot be read ({type(error).__name__}); install it again."
    try:
        text = next(filter(None, map(distribution.read_text, ("METADATA", "PKG-INFO", ""))), "")
    except Exception:  # noqa: BLE001
        text = ""
    if not all(re.search(rf"^{key}:\s*\S", text, re.MULTILINE) for key in ("Name", "Version")):
        return "its METADATA does not say its name and version; install it again."
    return None


def chosen_distributions() -> set[str] | None:
    """The distributions that ``AUDITOR_LOAD_PLUGINS`` names, canonical; None where all are wanted."""
    wanted = os.environ.get(LOAD_ONLY)
    return None if wanted is None else {canonical(name) for name in wanted.split(",")} - {"", "none"}


def limit_in_words() -> str | None:
    """What ``AUDITOR_LOAD_PLUGINS`` leaves out, in a sentence; None where it is not set."""
    wanted = os.environ.get(LOAD_ONLY)
    if wanted is None:
        return None
    if chosen_distributions():
        return f"{LOAD_ONLY}={wanted}: other installed plugins are not looked at."
    how = "is set to nothing" if not wanted.strip() else f"is {wanted}"
    return f"{LOAD_ONLY} {how}, so no installed plugin is looked at; unset it to look at all."


def wanted_distributions() -> list[Installed]:
    """The distributions that are looked at, by name."""
    chosen = chosen_distributions()
    if chosen is not None and not chosen:
        return []
    found = [each for each in installed() if chosen is None or canonical(each.name) in chosen]
    return sorted(found, key=lambda each: each.name)


def canonical(name: str) -> str:
    """A distribution's name as the packaging specifications compare it."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
