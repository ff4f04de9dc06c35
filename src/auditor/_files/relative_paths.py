"""Where the relative paths of a document lead: from the folder that the document lies in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_FOLDER: ContextVar[Path | None] = ContextVar("folder", default=None)


@contextmanager
def relative_to(folder: Path | None) -> Iterator[None]:
    """Within it relative paths lead from ``folder``; None: from the working folder."""
    before = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(before)


def folder_of_paths() -> Path | None:
    """The folder that relative paths lead from just now; None: the working folder."""
    return _FOLDER.get()


def placed(path: Path) -> Path:
    """``path``, from the folder that relative paths lead from just now."""
    folder = _FOLDER.get()
    return path if folder is None else folder / path
