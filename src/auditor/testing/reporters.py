"""Tests that every reporter must pass."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from auditor.errors import AuditorError
from auditor.testing.conformance import SEED, Conformance
from auditor.testing.kit import Kit


class ReporterConformance(Conformance):
    """Tests for reporters."""

    kind = "reporters"

    def exercise(self, micro: Kit, plugin: Any, seed: int = SEED) -> Any:
        """The bytes for the report of a real run."""
        return plugin.render(micro.report, micro.run)

    def test_it_returns_bytes(self, micro: Kit) -> None:
        """The file's content, not a path."""
        content = self.exercise(micro, self.make())
        assert isinstance(content, bytes) and content

    def test_it_writes_nothing_itself(self, micro: Kit) -> None:
        """Writing is auditor's part."""
        before = sorted(micro.run.rglob("*"))
        self.exercise(micro, self.make())
        assert sorted(micro.run.rglob("*")) == before

    @pytest.mark.parametrize("outcome", ["PASS", "FAIL", "INCONCLUSIVE", "ERROR"])
    def test_every_outcome_can_be_shown(self, micro: Kit, outcome: str) -> None:
        """PASS, FAIL, INCONCLUSIVE and ERROR stand in what it makes."""
        from auditor.report import Outcome, Verdict

        report = micro.report.model_copy(
            update={"verdict": Verdict(outcome=Outcome(outcome), reasons=("for a reason",))}
        )
        assert outcome.encode() in self.make().render(report, micro.run).upper()

    def test_images_that_are_gone_do_not_stop_it(self, micro: Kit, tmp_path: Path) -> None:
        """It ends with bytes or a sentence where the run's images are not there."""
        with contextlib.suppress(AuditorError):
            assert isinstance(self.make().render(micro.report, tmp_path), bytes)
