"""Looks at a checkpoint's folder with ``stat`` alone: kinds, counts, sizes and ways out, before any of its
files is opened (S19)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from auditor._files.json_files import LARGEST
from auditor.errors import RefusedError

IGNORED = (".git", ".gitattributes", ".gitignore", ".github", ".cache")
"""What lies at the top of a folder and is no part of a checkpoint: git's files, and ``.cache``, in which a
download of the Hub keeps the times of its files."""

_MOST_FILES = 10_000
_MOST_BYTES = 10**11
_TEXTS = (".json", ".txt", ".md", ".yaml", ".yml", ".jinja")


def survey(source: str, root: Path) -> dict[str, Path]:
    """Every file of a checkpoint by its name in the folder, sorted.

    Raises :class:`RefusedError` for what is no ordinary file (a pipe is never opened), for a link out of the
    checkpoint, and where there are too many files or bytes: all without reading one.
    """
    found: dict[str, Path] = {}
    total = 0
    for path in _walk(source, root):
        refuse_outside(source, root, path)
        name, facts = path.relative_to(root).as_posix(), _facts(source, path)
        if not stat.S_ISREG(facts.st_mode):
            raise RefusedError(f"{source}: {name[:200]} cannot be read: it is no ordinary file.")
        if path.suffix.lower() in _TEXTS and facts.st_size > LARGEST:
            raise RefusedError(
                f"{source}: {name[:200]} is larger than {LARGEST} bytes; no such file of a checkpoint is."
            )
        total += facts.st_size
        found[name] = path
        if len(found) > _MOST_FILES or total > _MOST_BYTES:
            most = f"{_MOST_FILES} files or {_MOST_BYTES / 1e9:.0f} GB"
            raise RefusedError(f"{source} holds more than {most}; no checkpoint of this kind does.")
    return dict(sorted(found.items()))


def _walk(source: str, root: Path) -> Iterator[Path]:
    folders, seen = [root], 0
    while folders:
        folder = folders.pop()
        seen += 1
        if seen > _MOST_FILES:
            raise RefusedError(
                f"{source} holds more than {_MOST_FILES} folders; no checkpoint of this kind does."
            )
        with os.scandir(folder) as entries:
            for entry in entries:
                path = Path(entry.path)
                if folder == root and entry.name in IGNORED:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif entry.is_symlink() and path.is_dir():
                    name = path.relative_to(root).as_posix()[:200]
                    raise RefusedError(
                        f"{source}: {name} is a link to a folder; put the folder itself there."
                    )
                else:
                    yield path


def _facts(source: str, path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise RefusedError(
            f"{source}: {path.parent.name}/{path.name} cannot be read: {error.strerror}."
        ) from error


def refuse_outside(source: str, root: Path, path: Path) -> None:
    """Refuse a file that is a way out: a link is followed only within the checkpoint, or into ``blobs`` of
    the Hub's cache."""
    if not path.is_symlink():
        return
    try:
        real, inside = path.resolve(), root.resolve()
    except (OSError, RuntimeError) as error:  # links in circles
        raise RefusedError(
            f"{source}: {path.parent.name}/{path.name} cannot be read: its link leads in a circle."
        ) from error
    if real.is_relative_to(inside):
        return
    snapshots = inside.parent
    if snapshots.name == "snapshots" and real.parent == snapshots.parent / "blobs":
        return
    raise RefusedError(
        f"{source}: {path.parent.name}/{path.name} leads out of the checkpoint; such a file is not read."
    )
