"""Turns a pickled checkpoint into safetensors, in a process of its own that holds nothing else; never called
by an audit.

``torch.load(weights_only=True)`` unpickles tensors and plain containers and refuses everything else. The
process gets no token and no network settings, and only its output file leaves it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from auditor._files.places import refuse_unwritable
from auditor.errors import RefusedError, UsageError
from auditor.families.registry import families

_LIMIT_SECONDS = 3600
_SCRIPT = Path(__file__).with_name("unpickling.py")


def convert(source: Path, out: Path, key: str | None = None) -> None:
    """Write the tensors of the pickle ``source`` to the safetensors file ``out``: all of them, or those under
    ``key`` (``state_dict``; ``a/b``: under ``b`` of ``a``).

    Raises :class:`UsageError` where a file is not there or in the way, and :class:`RefusedError` where the
    pickle holds anything but tensors and plain containers.
    """
    if not source.is_file():
        raise UsageError(f"There is no file {source}.")
    if out.exists() or out.suffix != ".safetensors":
        raise UsageError(f"{out} must be a new file that ends in .safetensors.")
    refuse_unwritable(out.parent)
    out.parent.mkdir(parents=True, exist_ok=True)
    known = ",".join(sorted({name for family in families() for name in family.stems}))
    part, keys = out.with_name(f".{out.stem}.part.safetensors"), key.split("/") if key else []
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "VIRTUAL_ENV")
    }
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(_SCRIPT), str(source.resolve()), str(part.resolve()), known, *keys],
            capture_output=True,
            text=True,
            check=False,
            env=kept,
            timeout=_LIMIT_SECONDS,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1][:200]
            raise RefusedError(f"{source} was not converted: {last}")
        part.replace(out)
    except subprocess.TimeoutExpired as error:
        raise RefusedError(f"{source} was not converted within an hour.") from error
    finally:
        part.unlink(missing_ok=True)
