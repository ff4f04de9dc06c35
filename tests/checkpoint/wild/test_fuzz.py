"""A LoRA file to which something was done is merged to exactly what it means, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoint.wild.fuzz import Subject, run


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject()


@pytest.mark.parametrize("start", range(0, 500, 50))
def test_what_was_done_to_a_file_is_refused_or_merged_as_it_means(
    subject: Subject, tmp_path: Path, start: int
) -> None:
    ends = [run(subject, seed, tmp_path) for seed in range(start, start + 50)]
    assert {end for _, end in ends} == {"merged", "refused"}
    assert all(end == "merged" for what, end in ends if what == "nothing"), "a sound file is read"
