"""The journal: appended, synced, and readable after any interruption."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditor._journal.file import Journal, read_journal
from auditor._journal.lines import ErrorLine
from auditor.errors import AuditorError


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.write(ErrorLine(arm="a", message="b"))
    assert read_journal(path) == [ErrorLine(arm="a", message="b")]


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal.jsonl"
    first, second = ErrorLine(arm="first", message="x"), ErrorLine(arm="second", message="y")
    with Journal(path) as journal:
        journal.write(first)
        journal.write(second)
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_journal(path) == [first]
    with Journal(path) as journal:
        journal.write(second)
    assert read_journal(path) == [first, second]


def test_damage_elsewhere_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.write(ErrorLine(arm="a", message="b"))
    path.write_bytes(b'{"kind": "batch", "arm"\n' + path.read_bytes())
    with pytest.raises(AuditorError, match=r"journal.jsonl:1: .*damaged"):
        read_journal(path)


def test_no_file_is_an_empty_journal(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "journal.jsonl") == []
