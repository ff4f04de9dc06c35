"""Documents are read strictly: what is wrong is said with its line and the nearest key."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from auditor._files.documents import parse_options, read_mapping, read_yaml
from auditor._files.json_files import parse_json, read_json
from auditor.errors import PolicyError, RefusedError, UsageError


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    images: int = 1


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    budget: Inner = Inner()


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


@pytest.mark.parametrize("content", [b"[1]", b'{"a": NaN}', b"{", b"\xff"])
def test_json_of_a_checkpoint_is_an_object_without_tricks(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(RefusedError):
        read_json(tmp_path / "config.json")
    with pytest.raises(RefusedError):
        parse_json("config.json", content)
