"""Cells, and updates of a population, as tables for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from auditor.plugin.contracts import Reporter
from auditor.report import CellResult, DetectorReading, Report, UpdateResult
from auditor.report.words import bounds, deciding, state_of

COLUMNS = (
    "verdict",
    "arm",
    "role",
    "concept",
    "surface",
    "n",
    "images",
    "planned",
    "hits",
    "missing",
    "found",
    "rate",
    "lower",
    "upper",
    "state",
    "p_held",
    "p_failed",
    "q",
    "mean_score",
    "seconds",
    "detector",
    "agreement",
)
UPDATE_COLUMNS = (
    "verdict",
    "number",
    "arm",
    "kind",
    "method",
    "steps",
    "drawn",
    "trained_on",
    "state",
    "concept",
    "images",
    "hits",
    "missing",
    "rate",
    "clean",
    "back",
    "lost",
    "retained",
    "why",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


class Csv(Reporter):
    """``cells.csv``: one row a cell as the gate sees it, then one as each other detector does.

    Numbers are those of ``report.json``; the verdict stands in every row.
    """

    name = "csv"
    summary = "one row a check, for spreadsheets and data frames"
    filename = "cells.csv"

    def render(self, report: Report, folder: Path) -> bytes:
        """UTF-8, RFC 4180; a text that a spreadsheet would take for a formula begins with an apostrophe."""
        verdict, gate = report.verdict.outcome.value, deciding(report)
        rows = [
            [verdict, *(_of(cell, column) for column in COLUMNS[1:-2]), gate, None] for cell in report.cells
        ]
        rows += [
            [verdict, *(_of(reading, column) for column in COLUMNS[1:])] for reading in report.other_detectors
        ]
        return csv_bytes(COLUMNS, rows)


class UpdatesCsv(Reporter):
    """``updates.csv``: one row an update of the policy's population and erased concept, in the order in which
    they were drawn; the head alone where the policy has none."""

    name = "csv-updates"
    summary = "one row an ordinary update and concept, for spreadsheets and data frames"
    filename = "updates.csv"

    def render(self, report: Report, folder: Path) -> bytes:
        """UTF-8, RFC 4180, as ``cells.csv``; ``drawn`` and ``trained_on`` are JSON, ``rate`` is empty where
        no image was drawn."""
        verdict, found = report.verdict.outcome.value, report.population
        updates = () if found is None else found.updates
        return csv_bytes(UPDATE_COLUMNS, (row for each in updates for row in _rows_of(verdict, each)))


def _rows_of(verdict: str, update: UpdateResult) -> Iterator[list[object]]:
    """A row a concept; one without where nothing was asked of the update."""
    head = [
        verdict,
        update.number,
        update.name,
        update.member,
        update.method,
        update.steps,
        json.dumps(update.drawn, ensure_ascii=False, sort_keys=True),
        json.dumps(update.trained_on, ensure_ascii=False),
        update.state,
    ]
    tail = [update.lost, update.retained, update.why or None]
    for each in update.rates:
        counts = [each.images, each.hits, each.missing, each.rate]
        yield [*head, each.concept, *counts, each.clean, each.back, *tail]
    if not update.rates:
        yield [*head, *([None] * 7), *tail]


def _of(row: CellResult | DetectorReading, column: str) -> object:
    """One field; of what was not drawn its state says so, and there are no bounds."""
    if column == "state" and isinstance(row, CellResult):
        return state_of(row) or None
    if column in ("lower", "upper"):
        return bounds(row)[column == "upper"]
    return getattr(row, column, None)


def csv_bytes(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """A table as CSV; None is an empty field, and no text drives a spreadsheet or a terminal."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows([_value(value) for value in row] for row in rows)
    return out.getvalue().encode()


def _value(value: object) -> object:
    if isinstance(value, str):
        plain = "".join(
            character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(value)
        )
        return (
            "'" + plain if str(value).lstrip().startswith(_FORMULA) or value.startswith(_FORMULA) else plain
        )
    return "" if value is None else value
