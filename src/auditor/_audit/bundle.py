"""A finished run in one file, without the weights of its arms: what a reader needs to look at it and to
verify it."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from auditor._audit.run_folder.manifest import open_run
from auditor.errors import UsageError

LEFT_OUT = "arms"
"""The folder with the weights of model states: large, and needed for 'auditor replay' alone."""
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip file can hold: the same run gives the same bytes


def bundle(run: Path, out: Path) -> tuple[int, int]:
    """Write the finished run in the folder ``run`` to ``out``, a zip file; arms' weights stay behind.

    Returns (files, bytes) of what went in. Raises :class:`UsageError` where ``run`` is no run, or has no
    report yet, or ``out`` is there already.
    """
    open_run(run)
    if not (run / "report.json").is_file():
        raise UsageError(f"{run} has no report.json yet: finish the audit first.")
    if out.exists():
        raise UsageError(f"{out} is there already; name another file.")
    files = [
        path
        for path in sorted(run.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.relative_to(run).parts[0] != LEFT_OUT
    ]
    name, size = run.resolve().name, 0
    part = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(part, "w") as archive:
            for path in files:
                content = path.read_bytes()
                size += len(content)
                entry = zipfile.ZipInfo((Path(name) / path.relative_to(run)).as_posix(), _EPOCH)
                entry.external_attr = 0o644 << 16
                kind = zipfile.ZIP_STORED if path.suffix == ".png" else zipfile.ZIP_DEFLATED
                archive.writestr(entry, content, kind)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return len(files), size
