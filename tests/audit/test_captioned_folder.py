"""Training pictures of the user's own: read in order, or refused with the reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from auditor._audit.run.captioned_folder import read_captioned_folder
from auditor._files.images import to_png
from auditor.errors import UsageError
from tests.files.test_images import HOSTILE, NOISE


def test_a_captioned_folder_is_read_in_order(tmp_path: Path) -> None:
    lines = []
    for number in range(10):
        (tmp_path / f"{number}.png").write_bytes(to_png(NOISE))
        lines.append(f'{{"file_name": "{number}.png", "text": "caption {number}"}}')
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    images, captions = read_captioned_folder(tmp_path, 8)
    assert images.shape == (10, 3, 8, 8) and captions == [f"caption {number}" for number in range(10)]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("not json", r"metadata.jsonl:1: expected an object"),
        ('{"file_name": "../../etc/passwd", "text": "x"}', "must lie inside the folder"),
        ('{"file_name": "missing.png", "text": "x"}', "cannot be read: No such file"),
        ("", "at least 10 are needed"),
    ],
)
def test_a_folder_that_cannot_be_used_says_why(tmp_path: Path, line: str, sentence: str) -> None:
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(UsageError, match=sentence):
        read_captioned_folder(tmp_path, 8)


def test_a_folder_without_metadata_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no metadata.jsonl"):
        read_captioned_folder(tmp_path, 8)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_training_folder_may_not_hold(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No program is started, nothing hangs, and the sentence names file and line."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch '{tmp_path / 'canary'}'\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    folder = tmp_path / "pictures"
    folder.mkdir()
    make, words = HOSTILE[name]
    make(folder / "x.png")
    (folder / "metadata.jsonl").write_text('\n{"file_name": "x.png", "text": "x"}\n')
    with pytest.raises(UsageError, match=words) as caught:
        read_captioned_folder(folder, 8)
    assert "metadata.jsonl:2" in str(caught.value) and not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"file_name": "a\\u0000.png", "text": "x"}',
        '{"file_name": 5, "text": "x"}',
        "[]",
        "null",
    ],
)
def test_a_line_that_is_no_entry_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "metadata.jsonl").write_text(f"{line}\n")
    with pytest.raises(UsageError, match=r"metadata.jsonl:1: "):
        read_captioned_folder(tmp_path, 8)


def test_metadata_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metadata.jsonl")
    with pytest.raises(UsageError, match="no ordinary file"):
        read_captioned_folder(tmp_path, 8)
