"""Is a report the one that its run's journal gives, and are the images there that it names?"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from auditor._audit.judge import judged, render
from auditor._journal.file import read_journal
from auditor._journal.lines import BatchLine
from auditor._process.machine import version_of
from auditor.errors import AuditorError, UsageError
from auditor.plugin._loader import load_plugins
from auditor.report import Report
from auditor.report.compare import read_report


@dataclass(frozen=True)
class Verified:
    """What was looked at, and what is wrong with it.

    ``version`` is that of the auditor that wrote the report. If this one is another, words may differ, so
    only verdict, counts and states are compared; ``left`` are the forms that were not.
    """

    images: int
    samples: int
    forms: tuple[str, ...]
    problems: tuple[str, ...]
    version: str
    left: tuple[str, ...] = ()


def verify(folder: Path, key: bytes | None = None) -> Verified:
    """Does the report in ``folder`` follow from its journal, and are all images there that the journal names?

    Schema and manifest are read strictly; every image's sha256 is taken, and there are as many as the ledger
    says; the journal is judged again, and every form that lies in the folder is made again and compared byte
    by byte. With ``key`` every line must carry its seal. Whether the images were drawn from the checkpoint is
    what ``auditor replay`` shows.
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
    same = version == version_of("auditor")
    before, after = (found.model_dump() if same else _essence(found) for found in (written, report))
    changed = [name for name in before if before[name] != after[name]]
    if changed:
        problems.append(f"report.json is not what the journal gives: {', '.join(changed)} differ.")
    lines = [line for line in read_journal(folder / "journal.jsonl") if isinstance(line, BatchLine)]
    named = [sample.image for line in lines for sample in line.samples if sample.image]
    counted = report.ledger.measured + report.ledger.unscored
    if not named or len(named) < counted:
        problems.append(
            f"The report counts {counted} images and the journal names {len(named)}; a report without an "
            "image shows nothing."
        )
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
        "cells": [
            (c.arm, c.role, c.concept, c.surface, c.n, c.images, c.hits, c.missing, c.state)
            for c in report.cells
        ],
        "controls": [(c.name, c.arm, c.concept, c.decides, c.passed) for c in report.controls],
        "ledger": report.ledger.model_dump(exclude={"skipped_because", "errors"}),
        "checkpoint": report.checkpoint,
        "policy_digest": report.policy_digest,
    }
