"""Places on a disk that cannot be used, or not in the usual way: what is said of each, and what is done
without."""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from auditor.errors import AuditorError, UsageError

NEEDS_POSIX = (
    "auditor runs on Linux and macOS alone: its file locks and signals are POSIX. On Windows, use it in WSL."
)
_GO_ON = "run the same command again: it goes on"
_PROBLEMS: dict[int, tuple[type[AuditorError], str]] = {
    errno.ENOSPC: (AuditorError, f"The disk under {{where}} is full. Make room and {_GO_ON}."),
    errno.EDQUOT: (AuditorError, f"The disk under {{where}} is full: its quota. Make room and {_GO_ON}."),
    errno.EFBIG: (
        AuditorError,
        "{where} is larger than files may be here; raise the limit (ulimit -f), or use another disk.",
    ),
    errno.EIO: (AuditorError, f"The disk under {{where}} has an error. Look at the disk, then {_GO_ON}."),
    errno.ESTALE: (
        AuditorError,
        f"The network share under {{where}} went away. Mount it again, then {_GO_ON}.",
    ),
    errno.EMFILE: (
        AuditorError,
        f"Too many files are open for {{where}} too. Raise the limit (ulimit -n) and {_GO_ON}.",
    ),
    errno.ENFILE: (
        AuditorError,
        f"Too many files are open on this machine for {{where}} too. Close some and {_GO_ON}.",
    ),
    errno.ENOENT: (
        AuditorError,
        "{where} is not there, or was removed meanwhile; put it back or name another.",
    ),
    errno.EROFS: (UsageError, "{where} cannot be written: its file system is read-only; give another place."),
    errno.EACCES: (
        UsageError,
        "{where} is not this user's to use (permission denied); give another place, or change its rights.",
    ),
    errno.EPERM: (
        UsageError,
        "{where} is not this user's to change (not permitted); give another place, or change its rights.",
    ),
    errno.ENOTDIR: (
        UsageError,
        "{where} cannot be there: a part of this path is a file; give another place.",
    ),
    errno.EEXIST: (UsageError, "{where} is in the way and no folder; give another place, or remove it."),
    errno.EISDIR: (AuditorError, "{where} is a folder where a file belongs; move it away."),
    errno.ENAMETOOLONG: (UsageError, "{where} is too long a name for this file system; give a shorter one."),
    errno.ELOOP: (UsageError, "{where} has links that lead in a circle; give another place."),
}
"""What the file system says, the exit code it has, and the next step."""
_NOT_KNOWN_HERE = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
_OTHER_HAS_IT = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})
_ANY_RIGHTS = _NOT_KNOWN_HERE | {errno.EPERM, errno.EACCES}


def problem_at(error: OSError, place: Path | None = None) -> AuditorError | None:
    """What ``error`` says of the file it names, else of ``place``, as one of our errors; None where it is
    nothing that a file system says."""
    named = error.filename2 or error.filename
    if error.errno not in _PROBLEMS:
        return None
    if isinstance(named, int) or not named:
        named = place
    if named is None:
        if "temporary directory" in str(error.strerror):
            return UsageError("No folder for temporary files can be written; set TMPDIR to one that can.")
        return None
    kind, sentence = _PROBLEMS[error.errno]
    return kind(sentence.format(where=os.fsdecode(named)))


def sentence_at(error: OSError, place: Path) -> str:
    """The same as a sentence, of ``place`` itself and of whatever error."""
    _, sentence = _PROBLEMS.get(
        error.errno or 0, (None, f"{{where}} cannot be used ({error.strerror or error}).")
    )
    return sentence.format(where=place)


def refuse_unwritable(folder: Path, *, go_on: bool = False) -> None:
    """Raise :class:`UsageError` where ``folder``, there or not, could not be written to; with ``go_on`` also
    where it holds what this user may not read, or not add to. It is left as it was."""
    where, made = folder, list[Path]()
    try:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file; give a folder.")
        try:
            for each in reversed((folder, *folder.parents)):
                if not each.exists():
                    each.mkdir()
                    made.append(each)
            handle, name = tempfile.mkstemp(dir=folder, prefix=".writable.")
            os.close(handle)
            Path(name).unlink()
        finally:
            for each in reversed(made):
                with suppress(OSError):  # somebody else has begun to use it
                    each.rmdir()
        for where in folder.iterdir() if go_on and not made else ():
            rights = os.R_OK | (os.W_OK if where.is_dir() or where.suffix == ".jsonl" else 0)
            if not os.access(where, rights, effective_ids=os.access in os.supports_effective_ids):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UsageError(sentence_at(error, where)) from error


def expanded(path: str) -> Path:
    """``path`` with a user's home in the place of ``~``; as it is where nobody has that home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def sync(descriptor: int) -> None:
    """Wait until what was written is on the disk, where the file system can say so."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_KNOWN_HERE:
            raise


def sync_folder(folder: Path) -> None:
    """The same for the names in a folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # it may be written and not listed
        return
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def set_mode(descriptor: int, mode: int) -> None:
    """Give a file its mode, where the file system has modes; it is in place all the same."""
    try:
        os.fchmod(descriptor, mode)
    except OSError as error:
        if error.errno not in _ANY_RIGHTS:
            raise


def lock(file: IO[Any]) -> bool | None:
    """Hold ``file`` for this process until it is closed. False where another one has it, None where the file
    system has no locks."""
    try:
        import fcntl
    except ImportError as error:
        raise UsageError(NEEDS_POSIX) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _OTHER_HAS_IT:
            return False
        if error.errno in _NOT_KNOWN_HERE | {errno.ENOLCK}:
            return None
        raise
    return True
