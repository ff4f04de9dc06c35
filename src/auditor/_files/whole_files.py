"""Files that are whole or not there: temporary file, sync, atomic rename, sync of the folder (safety.md
S10)."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from auditor.errors import AuditorError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_UMASK = os.umask(0o022)
os.umask(_UMASK)  # it can only be asked for by setting it
_SAFETENSORS_FULL = f"(os error {errno.ENOSPC})"  # it has an error class of its own


@contextmanager
def room_on_disk(folder: Path) -> Iterator[None]:
    """A full disk becomes an :class:`AuditorError` with a sentence; what was written whole is kept."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = error.errno in _FULL if isinstance(error, OSError) else str(error).endswith(_SAFETENSORS_FULL)
        if not full:
            raise
        where = getattr(error, "filename2", None) or getattr(error, "filename", None) or folder
        raise AuditorError(
            f"The disk under {where} is full. Make room and run the same command again: it goes on."
        ) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``; whatever happens in between, the old file or the new one is there,
    never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o666 & ~_UMASK)  # as any new file; a temporary one is for its owner alone
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
