"""A policy is what it says and what it names: another line in a label file is another digest to pin (S20)."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from auditor.builtins.detectors.clip_zero_shot import ClipZeroShot
from auditor.errors import UsageError
from auditor.plugin import Plugin
from auditor.plugin import _loader as loader
from auditor.plugin.instruments import make_instruments
from auditor.policy import Policy
from tests.conftest import DETECTOR, short_policy


def digest(policy: Policy) -> str:
    return policy.digest(make_instruments(policy).contents())


def named(tmp_path: Path, **options: Any) -> Policy:
    return short_policy(
        probes=[{"use": "in-domain", "doses": [3], "options": {"candidates": "micro-people", **options}}]
    )


def test_names_in_a_file_are_what_they_say(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("a\nb\nc\n")
    policy = named(tmp_path, candidates={"file": str(file)})
    before, written = digest(policy), policy.digest()
    file.write_text("a\nb\nd\n")
    assert digest(policy) != before and policy.digest() == written
    file.write_text("# a remark\na\n\nb\nc\n")
    assert digest(policy) == before, "what is read is the same"


def test_labels_and_templates_of_a_detector(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    options: dict[str, Any] = {**DETECTOR["options"], "labels": {"file": str(file)}}  # type: ignore[dict-item]
    policy = short_policy(detectors=[{"use": "clip-zero-shot", "options": options}])
    file.write_text("one\ntwo\n")
    before = digest(policy)
    file.write_text("two\none\n")
    assert digest(policy) != before, "their order decides which is the first choice"


def test_a_training_folder_is_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    (folder / "metadata.jsonl").write_text("{}\n")
    policy = named(tmp_path, folder=str(folder))
    seen = [digest(policy)]
    for name, content in (("1.png", b"1"), ("1.png", b"2"), ("deep/2.png", b"2"), ("metadata.jsonl", b"[]")):
        (folder / name).write_bytes(content)
        seen.append(digest(policy))
    (folder / "deep" / "2.png").rename(folder / "deep" / "3.png")
    seen.append(digest(policy))
    assert len(set(seen)) == len(seen)


def test_the_same_policy_has_the_same_digest() -> None:
    assert digest(short_policy()) == digest(short_policy())
    assert digest(short_policy()) != digest(short_policy(nonce="x"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "metadata.jsonl").write_text("{}\n")
    (folder / "metadata.jsonl").chmod(0)
    with pytest.raises(UsageError, match="cannot be read"):
        make_instruments(named(tmp_path, folder=str(folder))).contents()


def test_a_folder_of_terabytes_is_not_hashed(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    with (folder / "metadata.jsonl").open("wb") as file:
        file.truncate(4 * 10**12)
    with pytest.raises(UsageError, match="more than 100 GB"):
        make_instruments(named(tmp_path, folder=str(folder))).contents()


def test_a_pipe_in_a_training_folder_is_not_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    os.mkfifo(folder / "metadata.jsonl")
    make_instruments(named(tmp_path, folder=str(folder))).contents()


class Inner(ClipZeroShot):
    """A detector that makes its part itself, not through the loader."""

    name = "inner"

    def parts(self) -> tuple[Plugin, ...]:
        return (ClipZeroShot(self.options),)


def test_a_part_that_a_plugin_made_itself_is_said_by_content_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = loader.load_plugins()
    own = loader.PluginRecord("detectors", Inner.name, "test", "1", Inner)
    monkeypatch.setattr(loader, "load_plugins", lambda: replace(loaded, records=(*loaded.records, own)))
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\n")
    options = DETECTOR["options"] | {"labels": {"file": str(labels)}}
    instruments = make_instruments(short_policy(detectors=[{"use": "inner", "options": options}]))
    before = instruments.contents()
    instruments.refuse_changed(before)
    labels.write_text("a\nb\nc\n")
    with pytest.raises(UsageError, match=r"changed while the run went on \(detectors/0/inner: "):
        instruments.refuse_changed(before)
