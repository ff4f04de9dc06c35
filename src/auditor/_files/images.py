"""Pictures on disk: PNG files named by their sha256, and the cache that audits of one base share."""

from __future__ import annotations

import functools
import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from auditor._files.whole_files import write_whole

_LARGE = 3 * 128 * 128  # values of an image from which on encoding it takes longer than handing it on
_BLANK_DEVIATION = 2.0  # of 255: below it an image is one flat colour
_NOISE_CORRELATION = 0.2  # of neighbouring pixels: pictures lie above 0.5, white noise at 0


def to_png(image: Tensor) -> bytes:
    """A PNG of one image (uint8, (3, H, W))."""
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    return _encoded(pixels.shape, pixels.tobytes())


@functools.lru_cache(maxsize=64)
def _encoded(shape: tuple[int, ...], pixels: bytes) -> bytes:
    """Kept for a while: one image goes into a run, into the cache, and is compared by its name."""
    buffer = io.BytesIO()
    Image.fromarray(np.frombuffer(pixels, np.uint8).reshape(shape)).save(buffer, format="PNG")
    return buffer.getvalue()


def from_png(content: bytes) -> Tensor:
    """The image (uint8, (3, H, W)) of a PNG."""
    with Image.open(io.BytesIO(content)) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous()


def is_flat(image: Tensor) -> bool:
    """Is one image (uint8, (3, H, W)) one flat colour?"""
    return float(image.float().flatten(1).std(1).max()) < _BLANK_DEVIATION


def flaw_of(image: Tensor, finite: bool) -> str | None:
    """Why an image counts as missing, or None: a dead model's output must never read as "concept not
    shown"."""
    if not finite:
        return "not finite"
    if is_flat(image):
        return "blank"
    pixels = image.float()
    rows = torch.stack([pixels[:, :, :-1].flatten(), pixels[:, :, 1:].flatten()])
    correlation = float(torch.corrcoef(rows)[0, 1])
    # one that is not a number is none of a picture either
    return None if correlation >= _NOISE_CORRELATION else "noise"


class PictureStore:
    """``images/<sha256>.png`` of a run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, image: Tensor) -> str:
        """Write one image and return its sha256."""
        content = to_png(image)
        digest = hashlib.sha256(content).hexdigest()
        path = self.path(digest)
        if not path.exists():
            write_whole(path, content)
        return digest

    def save_all(self, images: Sequence[Tensor]) -> list[str]:
        """Write ``images`` and return their sha256, in their order; large ones by several threads."""
        if len(images) < 2 or images[0].numel() < _LARGE:
            return [self.save(image) for image in images]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="auditor-png") as pool:
            return list(pool.map(self.save, images))

    def path(self, digest: str) -> Path:
        """Where the image with this sha256 lies."""
        return self._folder / f"{digest}.png"

    def load(self, digest: str | None) -> Tensor | None:
        """The image with this sha256; None where its file is gone, or holds something else."""
        if digest is None:
            return None
        try:
            content = self.path(digest).read_bytes()
        except OSError:
            return None
        return from_png(content) if hashlib.sha256(content).hexdigest() == digest else None

    @staticmethod
    def name(image: Tensor) -> str:
        """The sha256 that an image is kept under."""
        return hashlib.sha256(to_png(image)).hexdigest()


class PictureCache:
    """Pictures by the digest of what made them. Each file carries its own sha256 and is hashed again when
    read. Without a folder, or with one that cannot be read, it holds none."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def load(self, key: str) -> Tensor | None:
        """The picture made by ``key``, or None; a file whose bytes do not match its name is not used."""
        for path in self._files_of(key):
            try:
                content = path.read_bytes()
            except OSError:
                continue
            if hashlib.sha256(content).hexdigest() == path.stem.rsplit("-", 1)[1]:
                return from_png(content)
        return None

    def has(self, key: str) -> bool:
        """Is there a picture made by ``key``?"""
        return bool(self._files_of(key))

    def save(self, key: str, image: Tensor) -> None:
        """Keep the picture made by ``key``, in the place of another one. Raises ``OSError`` where the folder
        cannot be written."""
        if self.folder is None:
            return
        content = to_png(image)
        path = self.folder / key[:2] / f"{key}-{hashlib.sha256(content).hexdigest()}.png"
        write_whole(path, content)
        for other in self._files_of(key):
            if other != path:
                other.unlink(missing_ok=True)

    def _files_of(self, key: str) -> list[Path]:
        try:
            return [] if self.folder is None else list(self.folder.glob(f"{key[:2]}/{key}-*.png"))
        except OSError:
            return []
