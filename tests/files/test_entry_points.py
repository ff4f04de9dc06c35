"""What is merely installed costs at most its own plugins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from auditor._files.entry_points import Installed, installed, wanted_distributions
from auditor._process.machine import version_of
from auditor.errors import PolicyError
from auditor.plugin._loader import find_plugin, load_plugins

METADATA = "Metadata-Version: 2.1\nName: reds\nVersion: 1.0\n"
ENTRY = "[auditor.v1]\nreds = reds\n"
MODULE = """
from auditor.plugin import hookimpl
from auditor.plugin.contracts import Reporter
class Red(Reporter):
    "Red."
    name, summary, filename, media_type = "red", "red", "red.txt", "text/plain"
    def render(self, report, folder): return b""
@hookimpl
def auditor_register_reporters(): return [Red]
@hookimpl
def auditor_report_written(record): pass
"""


def distribution(place: Path, folder: str, metadata: str | None, entries: str | bytes | None) -> None:
    """A folder of metadata, as an installer leaves it or not."""
    path = place / folder
    path.mkdir(parents=True)
    (place / "reds.py").write_text(MODULE)
    if metadata is not None:
        (path / "METADATA").write_text(metadata)
    if entries is not None:
        (path / "entry_points.txt").write_bytes(entries if isinstance(entries, bytes) else entries.encode())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUDITOR_LOAD_PLUGINS", "reds")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "reds", raising=False)
    load_plugins.cache_clear()
    return tmp_path


def reds() -> list[Installed]:
    return [each for each in installed() if each.name == "reds"]


@pytest.mark.parametrize(
    ("folder", "metadata", "entries"),
    [
        ("reds-1.0.dist-info", METADATA, "[console_scripts]\nno entry point\n"),
        ("reds-1.0.dist-info", METADATA, b"\xff\xfe[auditor.v1]"),
        ("reds-1.0.dist-info", None, ENTRY),
        ("reds-1.0.dist-info", "", ENTRY),
        ("reds-1.0.dist-info", "Metadata-Version: 2.1\nName: reds\n", ENTRY),
    ],
)
def test_a_broken_distribution_is_named_and_costs_its_own_plugins(
    place: Path, folder: str, metadata: str | None, entries: str | bytes
) -> None:
    distribution(place, folder, metadata, entries)
    (found,) = reds()
    assert found.error and not found.entries and found.version == "1.0"
    assert any(record.name == "reds" and record.error for record in load_plugins().records)
    with pytest.raises(PolicyError, match=r"Did not load: reds 1\.0"):
        find_plugin("reporters", "red")
    assert find_plugin("reporters", "junit").plugin is not None


@pytest.mark.parametrize(
    "entries", [ENTRY, "[auditor.v1]\none = reds\ntwo = reds\n", "[auditor.v1]\nreds = reds [extra]\n"]
)
def test_one_module_that_is_found_twice_is_one_plugin(place: Path, entries: str) -> None:
    distribution(place, "reds-1.0.dist-info", METADATA, entries)
    distribution(place, "~eds-1.0.dist-info", METADATA, entries)
    distribution(place / "later", "reds-0.9.dist-info", METADATA.replace("1.0", "0.9"), entries)
    sys.path.append(str(place / "later"))
    assert find_plugin("reporters", "red").origin == "reds 1.0"
    assert len([record for record in load_plugins().records if record.name == "red"]) == 1
    assert len([each for each in load_plugins().observers if each.origin == "reds 1.0"]) == 1


def test_a_class_that_another_hands_on_is_its_first_owners(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(place, "reds-1.0.dist-info", METADATA, ENTRY)
    other = METADATA.replace("reds", "zebras")
    distribution(place, "zebras-1.0.dist-info", other, ENTRY.replace("reds", "zebras"))
    (place / "zebras.py").write_text("from reds import Red\n" + MODULE.split("render")[0].split("class")[0])
    with (place / "zebras.py").open("a") as file:
        file.write("@hookimpl\ndef auditor_register_reporters(): return [Red]\n")
    monkeypatch.setenv("AUDITOR_LOAD_PLUGINS", "reds,zebras")
    assert find_plugin("reporters", "red").origin == "reds 1.0"


def test_an_empty_folder_hides_nothing(place: Path) -> None:
    distribution(place, "auditor-0.0.9.dist-info", None, None)
    distribution(place, "reds-0.1.dist-info", None, None)
    distribution(place / "later", "reds-1.0.dist-info", METADATA, ENTRY)
    sys.path.append(str(place / "later"))
    assert version_of("auditor") not in ("0.0.9", "unknown")
    assert [each.version for each in reds()] == ["1.0"]


@pytest.mark.parametrize(
    ("limit", "sentence"),
    [("", "is set to nothing, so no installed"), ("none", "is none, so no installed"), ("x", "=x: other")],
)
def test_what_limits_the_search_is_said(
    place: Path, monkeypatch: pytest.MonkeyPatch, limit: str, sentence: str
) -> None:
    distribution(place, "reds-1.0.dist-info", METADATA, "[auditor.v1]\nbroken line\n")
    monkeypatch.setenv("AUDITOR_LOAD_PLUGINS", limit)
    assert not [each for each in wanted_distributions() if each.name == "reds"]
    with pytest.raises(PolicyError, match=f"AUDITOR_LOAD_PLUGINS ?{sentence}"):
        find_plugin("reporters", "red")


def test_no_command_is_stopped_by_what_other_libraries_read(tmp_path: Path) -> None:
    distribution(tmp_path, "other-1.0.dist-info", METADATA, "[console_scripts]\nno entry point\n")
    distribution(tmp_path, "nameless-1.0.dist-info", None, None)
    distribution(tmp_path, "auditor-0.0.9.dist-info", None, None)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    environment = os.environ | {"PYTHONPATH": path, "AUDITOR_LOAD_PLUGINS": "none"}
    for line in (("--version",), ("inspect", "micro")):
        command = [sys.executable, "-m", "auditor", *line]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
        assert ended.returncode == 0, ended.stderr
        assert "0.0.9" not in ended.stdout
