"""Reports that exist: read them, compare two, and verify that one is what its run's journal gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from auditor._files.nearest import beside
from auditor.errors import UsageError
from auditor.report import CellResult, Population, Report, Share
from auditor.report.words import control_title, count, percent

_SEVERITY = {"PASS": 0, "INCONCLUSIVE": 1, "ERROR": 1, "FAIL": 2, "held": 0, "undecided": 1, "failed": 2}


def read_report(path: Path) -> Report:
    """The report in ``path``: a file, or the folder of a run. Raises :class:`UsageError` where it is none
    that this version reads."""
    file = path / "report.json" if path.is_dir() else path
    try:
        content = file.read_bytes()
        version = json.loads(content).get("schema_version")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{file} is no report: {getattr(error, 'strerror', None) or 'it is not a JSON object'}."
            f"{'' if file.exists() else beside(file)}"
        ) from error
    known = Report.model_fields["schema_version"].default
    if version != known:
        raise UsageError(
            f"{file} has schema version {str(version)[:20]}; this auditor reads version {known}; install the "
            "one that wrote it."
        )
    try:
        return Report.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{file} is no report of version {known}: {where}: {first['msg']}.") from error


@dataclass(frozen=True)
class Change:
    """One thing that is not the same in two reports; ``worse`` where the later one is further from PASS."""

    what: str
    before: str
    after: str
    worse: bool


def diff(before: Report, after: Report) -> list[Change]:
    """What changed, the verdict first."""
    found = [
        Change(
            "verdict",
            before.verdict.outcome,
            after.verdict.outcome,
            _worse(before.verdict.outcome, after.verdict.outcome),
        ),
        Change("checkpoint", before.checkpoint.digest[:12], after.checkpoint.digest[:12], worse=False),
        Change(
            "base",
            before.base.digest[:12] if before.base else "none",
            after.base.digest[:12] if after.base else "none",
            worse=False,
        ),
        Change("policy", before.policy_digest[:12], after.policy_digest[:12], worse=False),
        *_cells(before, after),
        *_updates(before.population, after.population),
        *_controls(before, after),
    ]
    return [change for change in found if change.before != change.after]


def _worse(before: str, after: str) -> bool:
    return _SEVERITY[after] > _SEVERITY[before]


def _cells(before: Report, after: Report) -> Iterator[Change]:
    old, new = (
        {(cell.arm, cell.surface): cell for cell in report.cells if cell.state} for report in (before, after)
    )
    for key in dict.fromkeys((*old, *new)):
        was, now = old.get(key), new.get(key)
        worse = (
            now is None or now.state != "held"
            if was is None or now is None
            else _worse(str(was.state), str(now.state))
        )
        yield Change(f"{key[1]} on {key[0]}", _cell(was), _cell(now), worse)


def _cell(cell: CellResult | None) -> str:
    if cell is None:
        return "not there"
    return f"{cell.state}, {count(cell)} ({percent(cell.lower, 1)} to {percent(cell.upper, 1)})"


def _updates(before: Population | None, after: Population | None) -> Iterator[Change]:
    """The claim over ordinary updates: a larger share is worse, and so is a claim of less."""
    yield Change(
        "share of ordinary updates that is allowed",
        _limit(before),
        _limit(after),
        worse=before is not None and (after is None or after.share > before.share),
    )
    yield Change(
        "ordinary updates that bring a concept back",
        _back(before),
        _back(after),
        worse=after is not None and after.back_lower > (before.back_lower if before else 0.0),
    )
    both = (before, after)
    old, new = ({share.concept: share for share in each.shares} if each else {} for each in both)
    for concept in dict.fromkeys((*old, *new)):
        was, now = old.get(concept), new.get(concept)
        worse = (
            now is None or not now.held
            if was is None or now is None
            else (was.held and not now.held) or now.upper > was.upper
        )
        yield Change(
            f"{concept or 'all pairs'} over ordinary updates",
            _share(was, before),
            _share(now, after),
            worse,
        )


def _limit(found: Population | None) -> str:
    return "not claimed" if found is None else f"{percent(found.share, 1)} of {found.over}"


def _back(found: Population | None) -> str:
    return "not claimed" if found is None else f"{found.back} of {found.read}, {_within(*found.bounds)}"


def _share(share: Share | None, found: Population | None) -> str:
    if share is None or found is None:
        return "not there"
    told = "held" if share.held else "failed" if found.failed else "undecided"
    if not found.read:
        return f"{told}, none read"
    mean = f"; mean rate {_within(share.mean_lower, share.mean_upper)}" if share.concept else ""
    return f"{told}, {share.unclean} of {found.read} not clean, share at most {percent(share.upper, 1)}{mean}"


def _within(low: float | None, high: float | None) -> str:
    return f"{percent(low, 1)} to {percent(high, 1)}"


def _controls(before: Report, after: Report) -> Iterator[Change]:
    words = {True: "passed", False: "not passed", None: "not applicable"}
    old, new = (
        {(c.name, c.arm, c.concept or "", c.decides): c.passed for c in report.controls}
        for report in (before, after)
    )
    for key in dict.fromkeys((*old, *new)):
        was, now = (words[each[key]] if key in each else "not there" for each in (old, new))
        name, arm, concept, decides = key
        of = f" of {concept}" if concept else ""
        yield Change(
            f"control {control_title(name)}{of} on {arm} (for {decides})",
            was,
            now,
            worse=was != now and now in ("not passed", "not there"),
        )
