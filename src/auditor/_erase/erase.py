"""Makes a reference erased checkpoint: base, policy and eraser in; a diffusers folder, or only what changed,
out.

``OUT/``            the base's files with the parts that changed, or ``unet-changed.safetensors`` alone
(``save="delta"``) ``OUT/erasure.json``  where it comes from: eraser, options, concepts, base and its licence,
seed, versions, and the eraser's own notes ``OUT/erasure/``    what the eraser keeps: MACE's Gram matrices and
LoRAs, from which concepts can be added or taken away later

Until it is whole all of it lies in ``.OUT.part`` beside it, where the same command goes on after an
interruption. What the eraser keeps says of itself what it was made from, so that a command with other
settings takes over what still fits.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auditor._erase.job import erasure_job
from auditor._erase.save import MARK, Before, Save, changed_tensors, refuse_delta, write_result
from auditor._files.places import lock, refuse_unwritable
from auditor._files.whole_files import on_disk
from auditor._process.signals import stoppable
from auditor._process.watchdog import WATCHDOG
from auditor.errors import AuditorError, UsageError
from auditor.plugin import _door as door
from auditor.policy import Policy

if TYPE_CHECKING:
    from auditor._checkpoint import Checkpoint
    from auditor._diffusion.model import DiffusionModel

_LITTLE_WORK = 60  # seconds: so much is thrown away where it turned out that something cannot be erased


def plan_erasure(
    base: str | tuple[Checkpoint, DiffusionModel],
    policy: Policy | Path | str,
    eraser: str,
    *,
    options: dict[str, Any] | None = None,
    seed: int = 0,
    reuse: Path | None = None,
    over: str | None = None,
    out: Path | None = None,
    chosen: Mapping[str, str] | None = None,
    offline: bool = False,
) -> dict[str, Any]:
    """What :func:`erase` would do, by the eraser's own account, and nothing of it done. Raises as it
    would."""
    if out is not None:
        _new_folder(out)
    job = erasure_job(base, policy, eraser, options, seed, reuse, over, chosen or {}, offline=offline)
    found: dict[str, Any] = door.call(job.plugin, job.plugin.plan, job.erasure(None))
    return found


def erase(
    base: str | tuple[Checkpoint, DiffusionModel],
    policy: Policy | Path | str,
    eraser: str,
    out: Path,
    *,
    options: dict[str, Any] | None = None,
    seed: int = 0,
    save: Save = "full",
    reuse: Path | None = None,
    over: str | None = None,
    chosen: Mapping[str, str] | None = None,
    offline: bool = False,
    on_step: Callable[[str, int, int], None] = lambda stage, step, steps: None,
) -> Path:
    """Erase the policy's concepts from ``base`` and write the result to ``out``.

    ``base`` is what a checkpoint is called, erased ones among them, or one that is in memory (as float32):
    then it is changed in place, and is the result. A file that lies over a diffusers folder needs that one in
    ``over``; ``chosen`` says what is meant where its files do not say one thing
    (:func:`~auditor._checkpoint.admit.open_checkpoint`). Only what the eraser says it changes may change;
    every other file is copied. With ``offline`` the Hub is not
    asked. ``reuse`` is an earlier result whose parts the eraser may take. Raises
    :class:`UsageError` where ``out`` is not empty or something cannot be erased; then nothing is written.
    """
    out = _new_folder(out)
    job = erasure_job(base, policy, eraser, options, seed, reuse, over, chosen or {}, offline=offline)
    if save == "delta":
        refuse_delta(job)
    # says what cannot be done, before anything is written
    door.call(job.plugin, job.plugin.plan, job.erasure(None))
    part = out.with_name(f".{out.name}.part")
    with on_disk(out), _only_one(part, eraser) as begun:
        began = time.monotonic()
        before = Before.of(job.model)
        # hours at true size, with a person at the terminal
        with (
            stoppable(),
            WATCHDOG.waiting(None, lambda sentence: None),
        ):
            try:
                notes = door.call(job.plugin, job.plugin.erase, job.erasure(part / "erasure", on_step))
            except UsageError:
                if begun and time.monotonic() - began < _LITTLE_WORK:
                    shutil.rmtree(part)
                raise
        changed = changed_tensors(job, before)
        if not changed:
            raise AuditorError(f"The eraser '{eraser}' changed nothing, so {out.name} was not written.")
        record = job.provenance() | {
            "seconds": round(time.monotonic() - began, 1),
            "changed": changed,
            "notes": notes,
        }
        write_result(job, part, save, changed, record)
        _put_in_place(part, out)
    return out


def _put_in_place(part: Path, out: Path) -> None:
    """The whole result becomes ``out``. Raises :class:`AuditorError` where something lies there by now."""
    try:
        if out.exists():
            out.rmdir()
        part.rename(out)
    except OSError as error:
        raise AuditorError(
            f"{out} is no longer empty; the result is whole in {part}: move it from there."
        ) from error
    (out / MARK).unlink(missing_ok=True)


def _new_folder(out: Path) -> Path:
    """``out`` without links in it. Raises :class:`UsageError` where it cannot become the result."""
    found = out.resolve()
    if found.exists() and (not found.is_dir() or any(found.iterdir())):
        raise UsageError(f"{out} is not empty; give a new folder with --out.")
    if not found.name or found.is_mount():
        raise UsageError(
            f"{out} cannot be replaced by the result; give a new folder inside of it with --out."
        )
    refuse_unwritable(found.parent if found.exists() else found)
    return found


@contextmanager
def _only_one(part: Path, eraser: str) -> Iterator[bool]:
    """Hold ``part`` for one erasure at a time; what another eraser left in it is removed. Yields whether it
    is new.

    Raises :class:`UsageError` where it is somebody else's, or another process works in it.
    """
    mark = part / MARK
    if part.exists() and (part.is_symlink() or not mark.is_file()):
        raise UsageError(f"{part} is in the way and no part of an erasure; move it, or give another --out.")
    begun = not part.exists()
    part.mkdir(parents=True, exist_ok=True)
    with mark.open("a+") as file:
        if lock(file) is False:
            raise UsageError(f"Another erasure is at work in {part}; wait for it, or give another --out.")
        file.seek(0)
        if file.read() not in ("", eraser):
            shutil.rmtree(part / "erasure", ignore_errors=True)
        file.truncate(0)
        file.write(eraser)
        file.flush()
        (part / "erasure").mkdir(exist_ok=True)
        yield begun
