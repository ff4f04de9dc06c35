"""A user's pictures, as people see them: one reader for training folders, masks and galleries.

They may be somebody else's: nothing but ordinary files of three formats is opened, and none before its size
was looked at (safety.md S19).
"""

from __future__ import annotations

import stat
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from auditor.errors import UsageError

_FORMATS = ("PNG", "JPEG", "WEBP")
_LARGEST_FILE = 64 * 2**20
_MOST_PIXELS = 50 * 10**6
_SIXTEEN_BITS = 2**16 - 1
_BROKEN = (  # what Pillow raises where a file is not what it says
    *(OSError, ValueError, SyntaxError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError),
    *(RuntimeError, AssertionError, struct.error, zlib.error, Image.DecompressionBombError),
)


def read_picture(where: str, path: Path, *, opaque: bool = False) -> Image.Image:
    """The picture in ``path`` (RGB): turned as its EXIF says, deep greys scaled to eight bits, on white where
    it is transparent, the first of an animation.

    Raises :class:`UsageError`, which begins with ``where`` and names the file, where there is none that can
    be read so; with ``opaque`` also where it is transparent anywhere.
    """
    refuse_no_file(where, path, _LARGEST_FILE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit of pixels is lower, the rest is metadata
            with Image.open(path, formats=_FORMATS) as picture:
                if picture.width * picture.height > _MOST_PIXELS:
                    pixels = f"{picture.width} x {picture.height} pixels"
                    raise UsageError(f"{where}: {path.name} has {pixels}; at most {_MOST_PIXELS} are read.")
                if opaque and _shows_through(picture):
                    raise UsageError(f"{where}: {path.name} is transparent in places; save it without alpha.")
                seen = _on_white(ImageOps.exif_transpose(picture))
    except UsageError:
        raise
    except _BROKEN as error:
        raise UsageError(
            f"{where}: {path.name} cannot be read as an image ({', '.join(_FORMATS)} are)."
        ) from error
    if seen is None:
        raise UsageError(
            f"{where}: {path.name} holds pixels of the kind {picture.mode}, whose white is not known; save "
            "it with 8 or 16 bits a channel."
        )
    return seen


def refuse_no_file(where: str, path: Path, largest: int) -> None:
    """Raise :class:`UsageError` where ``path`` is no ordinary file, or larger than any that is read: it is
    not opened."""
    try:
        facts = path.stat()
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its link leads in a circle"
        raise UsageError(f"{where}: {path.name} cannot be read: {reason}.") from error
    if not stat.S_ISREG(facts.st_mode):
        raise UsageError(f"{where}: {path.name} is no ordinary file; it is not opened.")
    if facts.st_size > largest:
        raise UsageError(f"{where}: {path.name} has {facts.st_size} bytes; at most {largest} are read.")


def _shows_through(picture: Image.Image) -> bool:
    if not picture.has_transparency_data:
        return False
    return picture.mode.startswith("I") or picture.convert("RGBA").getchannel("A").getextrema()[0] != 255


def _on_white(picture: Image.Image) -> Image.Image | None:
    """Eight bits of red, green and blue; None where it is not known which value is white."""
    if picture.mode == "F":
        return None
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.int64)
        if picture.format not in (None, "PNG") or values.min() < 0 or values.max() > _SIXTEEN_BITS:
            return None
        clear = (
            values == picture.info["transparency"]
            if "transparency" in picture.info
            else np.zeros_like(values)
        )
        grey = np.where(clear.astype(bool), 255, np.rint(values * (255 / _SIXTEEN_BITS)))
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture.convert("RGBA"))
    return white.convert("RGB")
