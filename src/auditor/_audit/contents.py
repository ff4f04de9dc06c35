"""What a policy's plugins decide by, said by content: their options with lists resolved, and every file and
folder that they name.

Part of the digest to pin and of a run's identity: a policy whose label file has another line is another
policy (safety.md S20).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from auditor._files.digest import sha256_json, sha256_tree
from auditor.errors import PluginError, UsageError
from auditor.plugin import _door as door
from auditor.plugin._loader import make_plugin
from auditor.plugin.contracts import Plugin
from auditor.policy import Policy

_MOST_BYTES = 10**11

Contents = Mapping[str, Mapping[str, str]]
"""By plugin (``detectors/0/clip-zero-shot``): what decides it, each with its sha256."""


def contents_of(policy: Policy) -> dict[str, dict[str, str]]:
    """The contents of every plugin that ``policy`` uses. Raises :class:`UsageError` where a file that one
    names cannot be read."""
    return {
        f"{kind}/{number}/{use.use}": _contents(make_plugin(kind, use.use, use.options))
        for kind in ("probes", "detectors", "metrics")
        for number, use in enumerate(getattr(policy, kind))
    }


def refuse_changed(policy: Policy, before: Contents) -> None:
    """Raise :class:`UsageError` where a file that the policy's plugins decide by is no longer what it was
    when the run began."""
    now = contents_of(policy)
    changed = [
        f"{plugin}: {what}"
        for plugin, named in now.items()
        for what in named
        if named[what] != before.get(plugin, {}).get(what)
    ]
    if changed:
        raise UsageError(
            f"What the policy names changed while the run went on ({changed[0]}); audit again in a new "
            "folder."
        )


def _contents(plugin: Plugin) -> dict[str, str]:
    options: dict[str, Any] = plugin.options.model_dump(mode="json")
    found = {name: sha256_json(value) for name, value in sorted(options.items())}
    for file in door.call(plugin, plugin.files):
        try:
            if _size_of(file) > _MOST_BYTES:
                raise UsageError(
                    f"{door.title(plugin)} decides by {file}, which holds more than {_MOST_BYTES / 1e9:.0f} "
                    "GB."
                )
            found[f"file {file}"] = sha256_tree(file)
        except OSError as error:
            raise UsageError(
                f"{door.title(plugin)} decides by {file}, which cannot be read ({error.strerror})."
            ) from error
    for number, part in enumerate(door.call(plugin, plugin.parts)):
        if not isinstance(part, Plugin):
            raise PluginError(
                f"{door.title(plugin)} returned {type(part).__name__} from parts(); plugins are right."
            )
        found |= {f"{part.name} {number}: {name}": digest for name, digest in _contents(part).items()}
    return found


def _size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder, through links, as they are hashed."""
    if not path.is_dir():
        return path.stat().st_size if path.is_file() else 0
    total, seen = 0, set[str]()
    for folder, folders, files in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        total += sum(_size_of(Path(folder, name)) for name in files)
    return total
