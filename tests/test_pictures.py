"""Pictures: content-addressed, hashed again when read, and blank ones known as such."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

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
