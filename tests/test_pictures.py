"""Pictures: content-addressed, hashed again when read, and blank ones known as such."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from auditor.errors import UsageError
from auditor.examples import read_captioned_folder
from auditor.pictures import PictureCache, PictureStore, flaw_of, from_png, to_png

NOISE = torch.randint(0, 256, (3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)

SMOOTH = torch.arange(0, 192, 1).view(1, 8, 24).expand(3, 8, 24).to(torch.uint8)


def test_a_picture_survives_the_disk(tmp_path: Path) -> None:
    assert torch.equal(from_png(to_png(NOISE)), NOISE)
    cache = PictureCache(tmp_path)
    cache.save("ab" * 32, NOISE)
    found = cache.load("ab" * 32)
    assert found is not None and torch.equal(found, NOISE)
    assert cache.load("cd" * 32) is None


def test_a_cached_picture_that_was_changed_is_not_used(tmp_path: Path) -> None:
    cache = PictureCache(tmp_path)
    cache.save("ab" * 32, NOISE)
    (path,) = tmp_path.rglob("*.png")
    path.write_bytes(to_png(255 - NOISE))
    assert cache.load("ab" * 32) is None


def test_a_picture_is_named_by_its_bytes(tmp_path: Path) -> None:
    digest = PictureStore(tmp_path).save(NOISE)
    assert (tmp_path / f"{digest}.png").read_bytes() == to_png(NOISE)


@pytest.mark.parametrize(
    ("image", "finite", "flaw"),
    [(SMOOTH, True, None), (NOISE, True, "noise"), (NOISE, False, "not finite"), (torch.zeros(3, 8, 8, dtype=torch.uint8), True, "blank")],
)
def test_flaws(image: torch.Tensor, finite: bool, flaw: str | None) -> None:
    assert flaw_of(image, finite) == flaw


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


def _eps(path: Path) -> None:
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n")


def _bomb(path: Path) -> None:
    Image.new("1", (13_000, 13_000)).save(path, format="PNG")


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10**10)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a program for Ghostscript": (_eps, "cannot be read as an image"),
    "a pipe": (os.mkfifo, "is no ordinary file"),
    "a folder": (lambda path: path.mkdir(), "is no ordinary file"),
    "a bomb of pixels": (_bomb, "13000 x 13000 pixels"),
    "ten gigabytes": (_sparse, "bytes; at most"),
    "a link out": (lambda path: path.symlink_to("/etc/hostname"), "must lie inside the folder"),
    "a link in a circle": (lambda path: path.symlink_to(path.name), "cannot be read|must lie inside"),
    "a TIFF": (lambda path: Image.new("RGB", (8, 8)).save(path, format="TIFF"), "PNG, JPEG, WEBP are"),
    "half a picture": (lambda path: path.write_bytes(to_png(NOISE)[:40]), "cannot be read as an image"),
    "nothing": (lambda path: path.write_bytes(b""), "cannot be read as an image"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_training_folder_may_not_hold(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
    "line", ["[" * 100_000 + "]" * 100_000, '{"file_name": "a\\u0000.png", "text": "x"}', '{"file_name": 5, "text": "x"}', "[]", "null"]
)
def test_a_line_that_is_no_entry_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "metadata.jsonl").write_text(f"{line}\n")
    with pytest.raises(UsageError, match=r"metadata.jsonl:1: "):
        read_captioned_folder(tmp_path, 8)


def test_metadata_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metadata.jsonl")
    with pytest.raises(UsageError, match="no ordinary file"):
        read_captioned_folder(tmp_path, 8)
