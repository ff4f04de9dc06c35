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
from auditor.report.voice import headline, numbers_of, strongest
from auditor.report.words import published, rate_of

_FILES = ("manifest.json", "journal.jsonl", "report.json")
_MOST = 10_000  # folders that are looked into


@dataclass(frozen=True)
class RunSummary:
    """One run in a list. What is not known is null."""

    folder: Path
    name: str
    """Of the folder, seen from the one that was asked for."""
    state: str
    """``finished``; ``unfinished``; ``unverified``, a report without its journal; or ``broken``."""
    verdict: str | None
    """Of a finished run whose report follows from its journal; null for any other."""
    so_far: str | None
    """What an unfinished or unverified one says."""
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
    updates: str | None = None
    """Of a claim over ordinary updates: what was read of them, and their share with its limit."""
    share_upper: float | None = None
    """The upper bound of the share of updates that bring a concept back."""

    def row(self) -> dict[str, Any]:
        """Everything but where it lies on this disk, for JSON."""
        found = asdict(self)
        del found["folder"]
        return found


def runs_below(folder: Path) -> list[RunSummary]:
    """Every run in ``folder`` or below it, by name. A run's own folders are not looked into, nor links."""
    closed: list[OSError] = []
    found = [_summary(each, folder) for each in sorted(_folders(folder, closed))]
    found += [_closed(error, folder) for error in closed]
    return sorted(found, key=lambda run: run.name)


def _folders(folder: Path, closed: list[OSError]) -> Iterator[Path]:
    """Folders of runs; what could not be looked into goes to ``closed``."""
    for looked, (place, below, files) in enumerate(os.walk(folder, onerror=closed.append)):
        if looked >= _MOST:
            raise AuditorError(f"There are more than {_MOST} folders below {folder}: name one with fewer.")
        if any(name in files for name in _FILES) or "manifest.json" in below:
            below.clear()
            yield Path(place)
        else:
            below[:] = [name for name in below if not name.startswith(".")]


def _closed(error: OSError, root: Path) -> RunSummary:
    folder = Path(str(error.filename))
    return _nothing(folder, _name(folder, root), f"cannot be looked into: {error.strerror}.")


def _name(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix() if folder != root else folder.resolve().name


def _summary(folder: Path, root: Path) -> RunSummary:
    """The journal is judged again: what a report says of itself is held against it."""
    name = _name(folder, root)
    try:
        stored = read_report(folder) if (folder / "report.json").exists() else None
        if stored is not None and not (folder / "journal.jsonl").exists():
            return _row(folder, name, stored, "unverified")
        report = judged(folder)
    except AuditorError as error:
        return _nothing(folder, name, said(error).replace(str(folder), name))
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:  # a folder of anybody's
        return _nothing(folder, name, f"cannot be read: {type(error).__name__}")
    if stored is None or stored.ledger.measured < report.ledger.measured:
        return _row(folder, name, report, "unfinished")
    if _facts(stored) != _facts(report):
        return _nothing(folder, name, "report.json is not what its journal gives; 'auditor judge' writes it.")
    return _row(folder, name, report, "finished")


def _facts(report: Report) -> tuple[object, ...]:
    """What no other version of auditor says otherwise of the same journal."""
    cells = tuple((cell.arm, cell.surface, cell.images, cell.hits, cell.state) for cell in report.cells)
    over = report.population
    return (
        report.verdict.outcome,
        report.policy_digest,
        report.checkpoint.digest,
        report.ledger.measured,
        cells,
        None if over is None else (over.read, over.unclean, over.back, over.state),
    )


def _nothing(folder: Path, name: str, why: str) -> RunSummary:
    return RunSummary(folder, name, "broken", None, None, None, None, None, None, None, None, why)


_SAID = {
    "finished": "",
    "unfinished": "Not finished, so this is what is known by now; the same command goes on. ",
    "unverified": "A report without its journal: nothing was held against it. ",
}


def _row(folder: Path, name: str, report: Report, state: str) -> RunSummary:
    worst, outcome, over = strongest(report), report.verdict.outcome.value, report.population
    return RunSummary(
        folder=folder,
        name=name,
        state=state,
        verdict=outcome if state == "finished" else None,
        so_far=None if state == "finished" else outcome,
        worst_rate=None if worst is None else rate_of(worst),
        worst=None if worst is None else f"{worst.surface} on {worst.arm}",
        checkpoint=published(report.checkpoint.source),
        checkpoint_digest=report.checkpoint.digest,
        policy_digest=report.policy_digest,
        date=report.provenance.started,
        updates=None if over is None else numbers_of(report, over),
        share_upper=None if over is None else over.bounds[1],
        sentence=_SAID[state] + headline(report),
    )
