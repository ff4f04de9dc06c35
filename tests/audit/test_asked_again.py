"""A finished run that is asked again says the same, and loads no model; a PASS is looked at again."""

from __future__ import annotations

from pathlib import Path

import pytest

import auditor
from auditor._audit.progress import Progress
from auditor.errors import UsageError
from auditor.report import Outcome, Report

pytestmark = pytest.mark.usefixtures("nano")


class Stages(Progress):
    """What an audit says of its stages."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, text: str) -> None:
        """Remember it."""
        self.said.append(text)

    @property
    def loads(self) -> bool:
        """Were models loaded?"""
        return any(text.startswith("loading models") for text in self.said)


def again(finished: tuple[Report, Path], erased: Path, stages: Stages) -> Report:
    _, run = finished
    return auditor.audit(
        str(erased), run.parent / "policy.yaml", run, cache=run.parent / "cache", progress=stages
    )


def test_a_finished_run_loads_no_model(finished: tuple[Report, Path], erased: Path) -> None:
    report, run = finished
    assert report.verdict.outcome is Outcome.INCONCLUSIVE
    stages, before = Stages(), (run / "journal.jsonl").read_bytes()
    again(finished, erased, stages)  # the command in the manifest is another than the fixture's copy had
    stages = Stages()
    before = (run / "journal.jsonl").read_bytes()
    found = again(finished, erased, stages)
    assert not stages.loads and any("nothing is left to do" in text for text in stages.said)
    assert (run / "journal.jsonl").read_bytes() == before and found.verdict == report.verdict


def test_a_run_that_lacks_its_end_goes_on(finished: tuple[Report, Path], erased: Path) -> None:
    _, run = finished
    again(finished, erased, Stages())
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    while b'"repeat"' not in lines[-1]:
        lines.pop()
    (run / "journal.jsonl").write_bytes(b"".join(lines[:-1]))
    stages = Stages()
    again(finished, erased, stages)
    assert stages.loads


def test_a_path_that_is_not_there_is_said_before_the_base_is_read(tmp_path: Path) -> None:
    stages = Stages()
    with pytest.raises(UsageError, match="There is no checkpoint at"):
        auditor.audit(str(tmp_path / "nothing"), "micro-person", tmp_path / "run", progress=stages)
    assert "admitting checkpoints" not in stages.said
