"""Digests name what was meant: canonical JSON, whole folders, seeds that parts decide."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from auditor._files.digest import seed_of, sha256_file, sha256_json, sha256_tree


def test_the_order_of_keys_does_not_matter_and_values_do() -> None:
    assert sha256_json({"a": 1, "b": [2]}) == sha256_json({"b": [2], "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 1.5})
    assert sha256_json("é") == hashlib.sha256('"é"'.encode()).hexdigest()
    with pytest.raises(ValueError, match="JSON"):
        sha256_json(float("nan"))


def test_a_folder_is_its_files_and_their_names(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "file").write_bytes(b"x")
    assert sha256_tree(tmp_path / "one") == sha256_tree(tmp_path / "two")
    (tmp_path / "two" / "deep" / "file").rename(tmp_path / "two" / "deep" / "other")
    assert sha256_tree(tmp_path / "one") != sha256_tree(tmp_path / "two")
    assert sha256_tree(tmp_path / "gone") == ""


def test_a_link_to_a_folder_above_ends(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert len(sha256_tree(tmp_path)) == 64


def test_a_file_is_read_in_blocks(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000  # more than two blocks
    (tmp_path / "x").write_bytes(content)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_seeds_tell_parts_apart_and_have_63_bits() -> None:
    seeds = {seed_of("a", "b"), seed_of("ab"), seed_of("a", "b", 0), seed_of("b", "a")}
    assert len(seeds) == 4 and all(0 <= seed < 2**63 for seed in seeds)
