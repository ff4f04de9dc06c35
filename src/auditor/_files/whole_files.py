"""Files that are whole or not there: temporary file, sync, atomic rename, sync of the folder (safety.md
S10)."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from auditor._files.places import problem_at, set_mode, sync, sync_folder

_UMASK = os.umask(0o022)
os.umask(_UMASK)  # it can only be asked for by setting it
_SAFETENSORS_ERROR = re.compile(r"\(os error (\d+)\)$")  # it has an error class of its own


@contextmanager
def on_disk(folder: Path) -> Iterator[None]:
    """What a file system refuses becomes an :class:`AuditorError` with a sentence
    (:mod:`auditor._files.places`); what was written whole is kept."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        said = _SAFETENSORS_ERROR.search(str(error)) if isinstance(error, SafetensorError) else None
        found = error if isinstance(error, OSError) else OSError(int(said[1]) if said else 0, str(error))
        problem = problem_at(found, folder)
        if problem is None:
            raise
        raise problem from error


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``; whatever happens in between, the old file or the new one is there,
    never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            set_mode(handle, 0o666 & ~_UMASK)  # as any new file; a temporary one is for its owner alone
            file.write(content)
            file.flush()
            sync(file.fileno())
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise
    sync_folder(path.parent)
