"""A user's pictures are read as people see them, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from auditor._files.pictures import read_picture
from auditor.errors import UsageError

RAMP = np.linspace(0, 1, 64 * 64).reshape(64, 64)


def read(path: Path) -> np.ndarray:
    return np.array(read_picture("here", path)).astype(int)


def halves(above: tuple[int, ...], below: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    picture = Image.new(mode, (64, 48), below)
    picture.paste(above, (0, 0, 64, 24))
    return picture


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_turn_in_the_exif_is_done(tmp_path: Path, orientation: int, suffix: str) -> None:
    how = Image.Transpose
    turned = {
        2: how.FLIP_LEFT_RIGHT,
        3: how.ROTATE_180,
        4: how.FLIP_TOP_BOTTOM,
        5: how.TRANSPOSE,
        6: how.ROTATE_90,
        7: how.TRANSVERSE,
        8: how.ROTATE_270,
    }
    upright, exif = halves((200, 40, 40), (40, 40, 200)), Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(turned[orientation]) if orientation in turned else upright
    stored.save(tmp_path / f"x{suffix}", exif=exif)
    seen = read(tmp_path / f"x{suffix}")
    assert seen.shape == (48, 64, 3)
    assert seen[:16, :, 0].mean() > 150 > 100 > seen[-16:, :, 0].mean()


@pytest.mark.parametrize("kind", ["sixteen bits", "eight bits", "grey and alpha"])
def test_greys_are_scaled_to_eight_bits(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.png"
    if kind == "sixteen bits":
        Image.fromarray((RAMP * 65535).astype(np.uint16)).save(path)
    elif kind == "eight bits":
        Image.fromarray((RAMP * 255).astype(np.uint8)).save(path)
    else:
        grey = Image.fromarray((RAMP * 255).astype(np.uint8)).convert("LA")
        grey.save(path)
    assert np.abs(read(path)[..., 1] - RAMP * 255).max() <= 1


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    for number, picture in enumerate(
        (
            halves((200, 40, 40, 255), (0, 0, 0, 0), "RGBA"),
            halves((60, 255), (0, 0), "LA"),
            halves((200, 40, 40), (1, 2, 3)),
        )
    ):
        path = tmp_path / f"{number}.png"
        picture.save(path, **({"transparency": (1, 2, 3)} if picture.mode == "RGB" else {}))
        seen = read(path)
        assert (seen[-16:] == 255).all() and seen[:16, :, 1].max() <= 60
    palette = halves((200, 40, 40, 255), (0, 0, 0, 0), "RGBA").quantize(4)
    palette.save(tmp_path / "p.png")
    assert (read(tmp_path / "p.png")[-16:] == 255).all()
    half = Image.new("RGBA", (32, 32), (0, 0, 0, 128))
    half.save(tmp_path / "half.png")
    assert read(tmp_path / "half.png").min() >= 126


def test_a_mask_must_be_opaque(tmp_path: Path) -> None:
    halves((255, 255, 255, 255), (0, 0, 0, 0), "RGBA").save(tmp_path / "open.png")
    with pytest.raises(UsageError, match=r"open\.png is transparent"):
        read_picture("here", tmp_path / "open.png", opaque=True)
    halves((255, 255, 255, 255), (0, 0, 0, 255), "RGBA").save(tmp_path / "shut.png")
    assert np.array(read_picture("here", tmp_path / "shut.png", opaque=True))[-1, -1].tolist() == [0, 0, 0]


def test_of_an_animation_the_first_picture_counts(tmp_path: Path) -> None:
    first, second = halves((200, 40, 40), (40, 40, 200)), halves((0, 0, 0), (9, 9, 9))
    for suffix in (".png", ".webp"):
        first.save(tmp_path / f"x{suffix}", save_all=True, append_images=[second])
        assert read(tmp_path / f"x{suffix}")[:16, :, 0].mean() > 150


def _cut(path: Path) -> None:
    halves((200, 40, 40), (40, 40, 200)).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:-200])


def _cut_png(path: Path) -> None:
    Image.fromarray((RAMP * 65535).astype(np.uint16)).save(path, format="PNG")
    path.write_bytes(path.read_bytes()[:-100])


def _float(path: Path) -> None:
    Image.fromarray(RAMP.astype(np.float32)).save(path, format="TIFF")


def _deep(path: Path) -> None:
    Image.fromarray((RAMP * (2**31 - 1)).astype(np.int32)).save(path, format="TIFF")


def _gif(path: Path) -> None:
    halves((200, 40, 40), (40, 40, 200)).save(path, format="GIF")


def _text(path: Path) -> None:
    path.write_text("no picture")


@pytest.mark.parametrize("make", [_cut, _cut_png, _float, _deep, _gif, _text, Path.touch])
def test_what_cannot_be_read_as_people_see_it_is_refused_by_name(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "odd.png"
    make(path)
    with pytest.raises(UsageError, match=r"^here: odd\.png cannot be read as an image"):
        read_picture("here", path)
