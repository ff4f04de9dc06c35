"""Many runs side by side: what each folder below one holds, also where it is broken or not finished."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from auditor._audit.judge import judged
from auditor.errors import AuditorError, said
from auditor.report import Report
from auditor.report.compare import read_report
from auditor.report.voice import headline, strongest
from auditor.report.words import published

_FILES = ("manifest.json", "journal.jsonl", "report.json")
_MOST = 10_000  # folders that are looked into


@dataclass(frozen=True)
class RunSummary:
    """One run in a list. What is not known is null."""

    folder: Path
    name: str
    """Of the folder, seen from the one that was asked for."""
    state: str
    """``finished``, ``unfinished`` or ``broken``."""
    verdict: str | None
    """Of an unfinished run: what it would be by now."""
    worst_rate: float | None
    """The highest rate of a deciding check that the verdict is about."""
    worst: str | None
    """Its concept and model state."""
    checkpoint: str | None
    checkpoint_digest: str | None
    policy_digest: str | None
    date: str | None
    sentence: str
    """The headline of the report, or what is wrong with the folder."""

    def row(self) -> dict[str, Any]:
        """Everything but where it lies on this disk, for JSON."""
        found = asdict(self)
        del found["folder"]
        return found


def runs_below(folder: Path) -> list[RunSummary]:
    """Every run in ``folder`` or below it, by name. A run's own folders are not looked into, nor links."""
    return [_summary(each, folder) for each in sorted(_folders(folder))]


def _folders(folder: Path) -> Iterator[Path]:
    for looked, (place, below, files) in enumerate(os.walk(folder)):
        if looked >= _MOST:
            raise AuditorError(f"There are more than {_MOST} folders below {folder}: name one with fewer.")
        if any(name in files for name in _FILES) or "manifest.json" in below:
            below.clear()
            yield Path(place)
        else:
            below[:] = [name for name in below if not name.startswith(".")]


def _summary(folder: Path, root: Path) -> RunSummary:
    name = folder.relative_to(root).as_posix() if folder != root else folder.resolve().name
    finished = (folder / "report.json").exists()
    try:
        report = read_report(folder) if finished else judged(folder)
    except AuditorError as error:
        return _nothing(folder, name, said(error).replace(str(folder), name))
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:  # a folder of anybody's
        return _nothing(folder, name, f"cannot be read: {type(error).__name__}")
    return _row(folder, name, report, finished=finished)


def _nothing(folder: Path, name: str, why: str) -> RunSummary:
    return RunSummary(folder, name, "broken", None, None, None, None, None, None, None, why)


def _row(folder: Path, name: str, report: Report, *, finished: bool) -> RunSummary:
    worst = strongest(report)
    unfinished = "Not finished, so this is what is known by now; the same command goes on. "
    return RunSummary(
        folder=folder,
        name=name,
        state="finished" if finished else "unfinished",
        verdict=report.verdict.outcome.value,
        worst_rate=None if worst is None else worst.hits / worst.images,
        worst=None if worst is None else f"{worst.surface} on {worst.arm}",
        checkpoint=published(report.checkpoint.source),
        checkpoint_digest=report.checkpoint.digest,
        policy_digest=report.policy_digest,
        date=report.provenance.started,
        sentence=("" if finished else unfinished) + headline(report),
    )
