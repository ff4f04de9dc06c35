"""Reports that exist: read them, compare two, and verify that one is what its run's journal gives."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path

from pydantic import ValidationError

from auditor.errors import AuditorError, UsageError
from auditor.journal import BatchLine, read_journal
from auditor.judging import judged, render
from auditor.plugin.loader import load_plugins
from auditor.report import CellResult, Report
from auditor.reporters.words import count, percent

_SEVERITY = {"PASS": 0, "INCONCLUSIVE": 1, "ERROR": 1, "FAIL": 2, "held": 0, "undecided": 1, "failed": 2}


def read_report(path: Path) -> Report:
    """The report in ``path``: a file, or the folder of a run. Raises :class:`UsageError` where it is none that this version reads."""
    file = path / "report.json" if path.is_dir() else path
    try:
        content = file.read_bytes()
        version = json.loads(content).get("schema_version")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UsageError(f"{file} is no report: {getattr(error, 'strerror', None) or 'it is not a JSON object'}.") from error
    known = Report.model_fields["schema_version"].default
    if version != known:
        raise UsageError(
            f"{file} has schema version {str(version)[:20]}; this auditor reads version {known}; install the one that wrote it."
        )
    try:
        return Report.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{file} is no report of version {known}: {where}: {first['msg']}.") from error


# -- comparison ------------------------------------------------------------------------------------------------------


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
        Change("verdict", before.verdict.outcome, after.verdict.outcome, _worse(before.verdict.outcome, after.verdict.outcome)),
        Change("checkpoint", before.checkpoint.digest[:12], after.checkpoint.digest[:12], worse=False),
        Change("base", before.base.digest[:12] if before.base else "none", after.base.digest[:12] if after.base else "none", worse=False),
        Change("policy", before.policy_digest[:12], after.policy_digest[:12], worse=False),
        *_cells(before, after),
        *_controls(before, after),
    ]
    return [change for change in found if change.before != change.after]


def _worse(before: str, after: str) -> bool:
    return _SEVERITY[after] > _SEVERITY[before]


def _cells(before: Report, after: Report) -> Iterator[Change]:
    old, new = ({(cell.arm, cell.surface): cell for cell in report.cells if cell.state} for report in (before, after))
    for key in dict.fromkeys((*old, *new)):
        was, now = old.get(key), new.get(key)
        worse = now is None or now.state != "held" if was is None or now is None else _worse(str(was.state), str(now.state))
        yield Change(f"{key[1]} on {key[0]}", _cell(was), _cell(now), worse)


def _cell(cell: CellResult | None) -> str:
    if cell is None:
        return "not there"
    return f"{cell.state}, {count(cell)} ({percent(cell.lower, 1)} to {percent(cell.upper, 1)})"


def _controls(before: Report, after: Report) -> Iterator[Change]:
    words = {True: "passed", False: "not passed", None: "not applicable"}
    old, new = ({(c.name, c.arm, c.concept or "", c.decides): c.passed for c in report.controls} for report in (before, after))
    for key in dict.fromkeys((*old, *new)):
        was, now = (words[each[key]] if key in each else "not there" for each in (old, new))
        name, arm, concept, decides = key
        of = f" of {concept}" if concept else ""
        yield Change(f"control {name}{of} on {arm} (for {decides})", was, now, worse=was != now and now in ("not passed", "not there"))


# -- verification ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verified:
    """What was looked at, and what is wrong with it.

    ``version`` is that of the auditor that wrote the report. If this one is another, words may differ, so only verdict, counts and
    states are compared; ``left`` are the forms that were not.
    """

    images: int
    samples: int
    forms: tuple[str, ...]
    problems: tuple[str, ...]
    version: str
    left: tuple[str, ...] = ()


def verify(folder: Path, key: bytes | None = None) -> Verified:
    """Does the report in ``folder`` follow from its journal, and are all images there that the journal names?

    Schema and manifest are read strictly; every image's sha256 is taken, and there are as many as the ledger says; the journal is judged
    again, and every form that lies in the folder is made again and compared byte by byte. With ``key`` every line must carry its seal.
    Whether the images were drawn from the checkpoint is what ``auditor replay`` shows.
    """
    problems: list[str] = []
    try:
        written = read_report(folder)
    except UsageError as error:
        return Verified(0, 0, (), (str(error),), "")
    version = written.provenance.versions.get("auditor", "")
    try:
        report = judged(folder, key)
    except AuditorError as error:
        return Verified(0, 0, (), (str(error),), version)
    same = version == installed_version("auditor")
    before, after = (found.model_dump() if same else _essence(found) for found in (written, report))
    changed = [name for name in before if before[name] != after[name]]
    if changed:
        problems.append(f"report.json is not what the journal gives: {', '.join(changed)} differ.")
    lines = [line for line in read_journal(folder / "journal.jsonl") if isinstance(line, BatchLine)]
    named = [sample.image for line in lines for sample in line.samples if sample.image]
    counted = report.ledger.measured + report.ledger.unscored
    if not named or len(named) < counted:
        problems.append(f"The ledger counts {counted} images and the journal names {len(named)}; a report without an image shows nothing.")
    for image in dict.fromkeys(named):
        path = folder / "images" / f"{image}.png"
        if not path.is_file():
            problems.append(f"images/{image}.png is gone.")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != image:
            problems.append(f"images/{image}.png is not the image that was scored.")
    forms, left = list[str](), list[str]()
    for record in load_plugins().records:
        if record.kind != "reporters" or record.plugin is None:
            continue
        file = folder / record.plugin.filename  # type: ignore[attr-defined]
        if not file.is_file():
            continue
        if not same:
            left.append(file.name)
            continue
        try:
            unchanged = render(report, folder, record.name)[1] == file.read_bytes()
        except AuditorError as error:
            problems.append(f"{file.name} cannot be made again: {error}")
            continue
        forms.append(file.name)
        if not unchanged:
            problems.append(f"{file.name} is not what the report gives (without options).")
    return Verified(len(set(named)), len(named), tuple(forms), tuple(problems), version, tuple(left))


def _essence(report: Report) -> dict[str, object]:
    """What every version must find in the same journal."""
    return {
        "verdict": (report.verdict.outcome, report.verdict.origin),
        "cells": [(c.arm, c.role, c.concept, c.surface, c.n, c.images, c.hits, c.missing, c.state) for c in report.cells],
        "controls": [(c.name, c.arm, c.concept, c.decides, c.passed) for c in report.controls],
        "ledger": report.ledger.model_dump(exclude={"skipped_because", "errors"}),
        "checkpoint": report.checkpoint,
        "policy_digest": report.policy_digest,
    }
