"""Training pictures of the user's own: read in order, or refused with the reason."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

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


def pictures(folder: Path, count: int = 10) -> list[str]:
    for number in range(count):
        (folder / f"{number}.png").write_bytes(to_png(NOISE))
    return [f"{number}.png" for number in range(count)]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("metadata.jsonl", lambda file, text: json.dumps({"file_name": file, "text": text}) + "\n"),
        (
            "metadata.jsonl",
            lambda file, text: json.dumps({"caption": text, "file_name": file, "x": 1}) + "\r\n",
        ),
        (
            "metadata.jsonl",
            lambda file, text: json.dumps({"file_name": file, "text": text, "caption": text}) + "\n",
        ),
        ("metadata.csv", lambda file, text: f'{file},"{text}"\n'),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("head", ["file_name,text", "File_Name, caption"])
def test_captions_are_read_as_imagefolder_reads_them(
    tmp_path: Path, name: str, make: Callable[[str, str], str], mark: str, head: str
) -> None:
    caption = "a lamp\u2028by\u0085night, lit"
    begin = f"{mark}{head}\n" if name.endswith("csv") else mark
    content = begin + "".join(make(file, caption).replace("\\u2028", "\u2028") for file in pictures(tmp_path))
    (tmp_path / name).write_bytes(content.encode())
    _, captions = read_captioned_folder(tmp_path, 8)
    assert captions == [caption] * 10


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"metadata.jsonl": "", "metadata.csv": ""}, "both metadata.jsonl and metadata.csv"),
        ({"metadata.csv": "file,text\n0.png,x\n"}, r"no column 'file_name'; its header holds 'file', 'text'"),
        ({"metadata.csv": "file_name,label\n0.png,x\n"}, r"csv:2: .*it has 'file_name', 'label'"),
        ({"metadata.csv": "file_name,text,text\n0.png,x,y\n"}, "2 columns called 'text'"),
        ({"metadata.jsonl": '{"file_name": "0.png", "text": "x", "text": "y"}'}, "jsonl:1: .*each once"),
        ({"metadata.jsonl": '{"file_name": "0.png", "text": "x", "caption": "y"}'}, "jsonl:1: .*two things"),
        ({"metadata.jsonl": '{"file_name": "0.png", "prompt": "x"}'}, "jsonl:1: .*'file_name', 'prompt'"),
        ({"metadata.jsonl": '{"file_name": "0.png", "text": null}'}, "jsonl:1: text must be a string"),
    ],
)
def test_a_table_that_does_not_say_one_thing_is_refused(
    tmp_path: Path, files: dict[str, str], sentence: str
) -> None:
    pictures(tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=sentence):
        read_captioned_folder(tmp_path, 8)


def _plain(color: tuple[int, ...]) -> Image.Image:
    return Image.new("RGB" if len(color) == 3 else "RGBA", (64, 64), color)


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        *[(_plain(color), "one flat colour") for color in ((255, 255, 255), (0, 0, 0), (200, 40, 40))],
        (_plain((0, 0, 0, 0)), "one flat colour"),
        (Image.effect_noise((7, 200), 50), "has 7 x 200 pixels; at least 8 a side"),
        (Image.new("RGB", (1, 1), "red"), "has 1 x 1 pixels"),
    ],
)
def test_a_picture_that_shows_nothing_is_refused_by_name(
    tmp_path: Path, picture: Image.Image, sentence: str
) -> None:
    lines = [json.dumps({"file_name": name, "text": "x"}) for name in pictures(tmp_path)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    picture.save(tmp_path / "6.png")
    with pytest.raises(UsageError, match=rf"jsonl:7: 6\.png .*{sentence}|jsonl:7: 6\.png is {sentence}"):
        read_captioned_folder(tmp_path, 8)


def test_a_small_picture_is_measured_by_what_is_drawn(tmp_path: Path) -> None:
    lines = [json.dumps({"file_name": name, "text": "x"}) for name in pictures(tmp_path)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    with pytest.raises(UsageError, match="has 8 x 8 pixels; at least 64 a side"):
        read_captioned_folder(tmp_path, 512)


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
