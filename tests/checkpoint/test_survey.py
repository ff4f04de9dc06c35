"""A folder is looked at with ``stat`` before anything in it is opened: nothing hangs, nothing large is
hashed first (S19)."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.inspection import inspect
from auditor._checkpoint.survey import survey
from auditor._files.bundled import micro_world
from auditor.errors import RefusedError

pytestmark = pytest.mark.usefixtures("nano")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(micro_world(), tmp_path / "x"))


def sparse(path: Path, size: int) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def listen(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


def many(folder: Path) -> None:
    for number in range(10_001):
        (folder / "unet" / f"{number}.bin").touch()


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a readme that is a pipe": (
        lambda f: os.mkfifo(f / "README.md"),
        "README.md cannot be read: it is no ordinary file",
    ),
    "a pipe that nobody would read": (lambda f: os.mkfifo(f / "unet" / "notes"), "unet/notes cannot be read"),
    "a socket": (lambda f: listen(f / "vae" / "s"), "vae/s cannot be read"),
    "a link to a pipe": (lambda f: (os.mkfifo(f / "a"), (f / "b").symlink_to("a")), "cannot be read"),
    "a link to a device": (lambda f: (f / "unet" / "zero").symlink_to("/dev/zero"), "leads out"),
    "a link to a folder": (lambda f: (f / "unet2").symlink_to("unet"), "a link to a folder"),
    "a broken link": (lambda f: (f / "gone").symlink_to("nowhere"), "cannot be read"),
    "links in a circle": (
        lambda f: ((f / "one").symlink_to("two"), (f / "two").symlink_to("one")),
        "cannot be read",
    ),
    "four terabytes of nothing": (
        lambda f: sparse(f / "x.safetensors", 4 * 10**12),
        "more than 10000 files or 100 GB",
    ),
    "three gigabytes of text": (lambda f: sparse(f / "tokenizer" / "notes.txt", 3 * 10**9), "is larger than"),
    "a readme of a gigabyte": (lambda f: sparse(f / "README.md", 10**9), "is larger than"),
    "ten thousand files": (many, "more than 10000 files"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_checkpoint_holds_is_refused_at_once(folder: Path, name: str) -> None:
    make, words = REFUSED[name]
    make(folder)
    began = time.monotonic()
    with pytest.raises(RefusedError, match=words):
        open_checkpoint(str(folder))
    assert inspect(str(folder)).refused, "and 'inspect' says so too, without opening it"
    assert time.monotonic() - began < 20


def test_what_git_keeps_is_no_part_of_it(folder: Path) -> None:
    (folder / ".git").mkdir()
    os.mkfifo(folder / ".git" / "pipe")
    assert not any(name.startswith(".git") for name in survey("x", folder))
    assert open_checkpoint(str(folder)).digest == open_checkpoint("micro").digest


def test_a_card_beside_one_file_is_not_waited_for(tmp_path: Path) -> None:
    shutil.copy(micro_world() / "unet" / "diffusion_pytorch_model.safetensors", tmp_path / "unet.safetensors")
    os.mkfifo(tmp_path / "README.md")
    assert inspect(str(tmp_path / "unet.safetensors")).licence is None
    (tmp_path / "README.md").unlink()
    (tmp_path / "README.md").symlink_to("/etc/hostname")
    assert inspect(str(tmp_path / "unet.safetensors")).licence is None
