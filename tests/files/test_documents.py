"""Documents are read strictly: what is wrong is said with its line and the nearest key."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from auditor._files.documents import parse_options, parse_scalar, read_mapping, read_yaml
from auditor._files.json_files import parse_json, read_json
from auditor.errors import PolicyError, RefusedError, UsageError


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    images: int = 1


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    budget: Inner = Inner()
    name: str = ""
    on: bool = False


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_one(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("# a comment\nbudget:\n  imagse: 3\n")
    with pytest.raises(PolicyError, match=r"x\.yaml:3: .*imagse.*images"):
        read_yaml(file, Document)


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "a: [1\n", "- 1\n", "\x00"])
def test_what_is_no_mapping_of_single_keys_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises((PolicyError, UsageError), match=r"x\.yaml"):
        read_mapping(file)


def test_options_on_a_command_line_are_yaml() -> None:
    assert parse_options(["a=1", "b=[x, 2]", "c=text"]) == {"a": 1, "b": ["x", 2], "c": "text"}
    with pytest.raises(UsageError, match="KEY=VALUE"):
        parse_options(["a"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("0", 0), ("-7", -7), ("+5", 5), ("0o17", 15), ("0x1f", 31), ("!!int 12", 12)],
        *[
            ("1e-1", 0.1),
            ("1e3", 1000.0),
            ("1E+2", 100.0),
            (".5", 0.5),
            ("1.", 1.0),
            ("0.10", 0.1),
            ("!!float 3", 3.0),
        ],
        *[("true", True), ("False", False), ("TRUE", True), ("null", None), ("~", None), ("", None)],
        # YAML 1.1 makes numbers, truth values and dates of these; they are what stands there
        *[
            (text, text)
            for text in ("0100", "-010", "1:30", "1:30:00", "1_000", "0b11", "00.5", "0777", "0o8")
        ],
        *[(text, text) for text in ("yes", "no", "on", "Off", "y", "2026-01-02", "=", "<<", "NaN", "inf")],
        *[("!!str 12", "12"), ("'012'", "012"), ('"no"', "no"), ("[no, 010]", ["no", "010"])],
    ],
)
def test_a_plain_word_is_what_it_is_in_yaml_1_2(text: str, value: object) -> None:
    found = parse_scalar(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        *["!!int 010", "!!int 1:30", "!!float 1_0.5", "!!bool yes", "!!null x", "!!timestamp 2026-01-02"],
        *[
            "!!binary aa==",
            "!!set {a}",
            "!!omap [a: 1]",
            "!!python/name:os.system",
            ".inf",
            "-.INF",
            ".nan",
            "1e999",
        ],
    ],
)
def test_what_a_tag_cannot_make_of_a_word_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_scalar(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("budget: {images: 0100}", r"x\.yaml:1: .*given: '0100'.*without quotes, leading zeros, colons"),
        ("budget: {images: 1:30}", r"given: '1:30'.*colons"),
        ("budget: {images: 1_000}", r"given: '1_000'.*underscores"),
        ("name: 1984", r"given: 1984.*put it in quotes"),
        ("name: Null", r"given: None.*put it in quotes"),
        ("name: true", r"given: True.*put it in quotes"),
        ("on: yes", r"given: 'yes'.*write true or false"),
    ],
)
def test_what_came_as_something_else_says_how_to_write_it(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(PolicyError, match=sentence):
        read_yaml(file, Document)


@pytest.mark.parametrize("content", [b"[1]", b'{"a": NaN}', b"{", b"\xff"])
def test_json_of_a_checkpoint_is_an_object_without_tricks(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(RefusedError):
        read_json(tmp_path / "config.json")
    with pytest.raises(RefusedError):
        parse_json("config.json", content)
