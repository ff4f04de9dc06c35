"""Pictures: content-addressed, hashed again when read, and blank ones known as such."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from auditor._files.images import PictureCache, PictureStore, flaw_of, from_png, to_png

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
    [
        (SMOOTH, True, None),
        (NOISE, True, "noise"),
        (NOISE, False, "not finite"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), True, "blank"),
    ],
)
def test_flaws(image: torch.Tensor, finite: bool, flaw: str | None) -> None:
    assert flaw_of(image, finite) == flaw


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
