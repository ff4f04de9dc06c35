"""From what a user names to a place on this disk; what is on the Hub is fetched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from auditor._checkpoint.addresses import HubSource, parse_hub_source
from auditor._checkpoint.hub import Snapshot, fetch
from auditor._files.bundled import micro_world
from auditor._files.nearest import beside
from auditor._files.places import expanded
from auditor.errors import UsageError


@dataclass(frozen=True)
class Located:
    """What a user named, on this disk: a folder or a file, and what the Hub says of its files."""

    source: str
    path: Path
    snapshot: Snapshot | None = None


def on_hub(source: str) -> HubSource | None:
    """What ``source`` names on the Hub; None where it is something on this disk."""
    if source == "micro" or (expanded(source).exists() and not source.startswith("hf://")):
        return None
    return parse_hub_source(source)


def locate(source: str, *, offline: bool = False) -> Located:
    """Resolve ``source``: ``micro``, a folder, a file, or a repository on the Hub. Raises
    :class:`UsageError` where nothing is there."""
    if source == "micro":
        return Located(source, micro_world())
    hub = on_hub(source)
    if hub is not None:
        return _on_hub(source, hub, offline)
    path = expanded(source)
    if not path.exists():
        raise UsageError(
            f"There is no checkpoint at {source}; give a folder, a safetensors file, hf://org/name, or "
            f"'micro' for the built-in base.{beside(path)}"
        )
    return Located(source, path)


def refuse_missing(source: str) -> None:
    """Raise :class:`UsageError` where nothing is at ``source``, if it is a place on this disk. The Hub is not
    asked."""
    if source != "micro" and on_hub(source) is None:
        locate(source)


def _on_hub(source: str, hub: HubSource, offline: bool) -> Located:
    try:
        snapshot = fetch(hub, offline=offline)
    except UsageError as error:  # ``runs/erasd`` may be a repository, and a folder that is misspelt
        near = "" if source.startswith(("hf://", "http")) else beside(source)
        raise UsageError(f"{error}{near}") from error
    return Located(source, snapshot.folder / hub.file if hub.file else snapshot.folder, snapshot)
