"""A second detector decides nothing, and what it says is in every form."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from auditor._audit.cells import PlannedSample, Role
from auditor._audit.judge import render
from auditor._audit.plan import make_plan
from auditor._journal.lines import BatchLine, Line, Sample
from auditor.report import Outcome, Report
from tests.conftest import DETECTOR, erased_well, journal_of, short_policy, verdict_of

SECOND = "by-domain"
ERASED = "Borin Talvek"


def seen_by_the_second(sample: Sample, arm: str) -> Sample:
    """The gate's answer, but for every fifth image after the update, in which the second sees the concept."""
    (score,) = sample.observations.values()
    again = score.hits
    if arm == "in-domain-lora" and "|gate|" in sample.cell and sample.index % 5 == 0:
        again = again | {ERASED: True}
    return sample.model_copy(
        update={"observations": sample.observations | {SECOND: score.model_copy(update={"hits": again})}}
    )


@pytest.fixture
def report() -> Report:
    policy = short_policy(detectors=[DETECTOR, {"use": SECOND, "options": {"domains": {}}}])
    plan = make_plan(policy)

    def hit(planned: PlannedSample) -> bool | None:
        first = planned.cell.role is Role.GATE and planned.cell.arm == "erased" and planned.index == 0
        return None if first and planned.prompt.startswith("a sketch") else erased_well(planned)

    lines: list[Line] = []
    for line in journal_of(plan, hit):
        if isinstance(line, BatchLine):
            samples = tuple(
                seen_by_the_second(sample, line.arm) if sample.observations else sample
                for sample in line.samples
            )
            line = line.model_copy(update={"samples": samples})
        lines.append(line)
    return verdict_of(plan, lines)


def test_it_decides_nothing_and_its_rate_is_there_beside_the_gates(report: Report) -> None:
    assert report.verdict.outcome is Outcome.PASS, report.verdict.reasons
    readings = {(reading.arm, reading.role): reading for reading in report.other_detectors}
    cells = {(cell.arm, cell.role): cell for cell in report.cells}
    assert readings.keys() == cells.keys() and {r.detector for r in readings.values()} == {SECOND}
    after = readings["in-domain-lora", "gate"]
    assert (after.images, after.hits, after.missing) == (60, 15, 0)
    assert (after.compared, after.only_gate, after.only_this) == (60, 0, 15)
    assert after.rate == 0.25 and after.agreement == 0.75
    assert after.lower is not None and after.upper is not None and after.lower < 0.25 < after.upper
    erased, gate = readings["erased", "gate"], cells["erased", "gate"]
    assert gate.missing and (erased.hits, erased.missing) == (gate.hits, gate.missing)
    assert (erased.lower, erased.upper) == (gate.lower, gate.upper) and erased.agreement == 1
    assert erased.compared == gate.n


def test_page_table_and_summary_show_it(report: Report, tmp_path: Path) -> None:
    page = render(report, tmp_path, "html")[1].decode()
    assert "What the other detectors say" in page and "15 of 60" in page
    rows = list(csv.DictReader(io.StringIO(render(report, tmp_path, "csv")[1].decode())))
    (row,) = [row for row in rows if row["detector"] == SECOND and row["arm"] == "in-domain-lora"]
    assert (row["hits"], row["rate"], row["agreement"], row["state"]) == ("15", "0.25", "0.75", "")
    assert "Other detectors, which decide nothing" in render(report, tmp_path, "markdown")[1].decode()


def test_where_there_is_one_nothing_is_said_of_others(tmp_path: Path) -> None:
    plan = make_plan(short_policy())
    alone = verdict_of(plan, journal_of(plan, erased_well))
    assert alone.other_detectors == ()
    assert "other detectors" not in render(alone, tmp_path, "html")[1].decode()
