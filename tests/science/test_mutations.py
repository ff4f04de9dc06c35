"""Five hundred random edits of runs, checkpoints and policies: none ends in a PASS, none hangs, none
starts a program."""

from __future__ import annotations

import pytest

from tests.science.mutations import COUNTS, run, table

pytestmark = pytest.mark.science


def test_no_edit_of_what_an_audit_believes_in_makes_it_pass() -> None:
    rows = run()
    print("\n" + table(rows))
    assert len(rows) == sum(COUNTS.values())
    assert [row for row in rows if row["verdict"] == "PASS"] == []
    assert [row for row in rows if row["verdict"] == "hang" or row["canary"]] == []
    assert [row for row in rows if row["verdict"] == "unexpected" or row["verdict"].startswith("died")] == []
