"""A finished run in one file: without weights, and it verifies after unpacking."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from auditor._audit.bundle import bundle
from auditor._audit.verify import verify
from auditor.errors import UsageError
from auditor.report import Report

pytestmark = pytest.mark.usefixtures("nano")


def test_a_bundle_holds_all_but_the_weights_and_verifies(
    finished: tuple[Report, Path], tmp_path: Path
) -> None:
    _, run = finished
    assert any((run / "arms").rglob("*.safetensors"))
    one, other = tmp_path / "one.zip", tmp_path / "other.zip"
    files, size = bundle(run, one)
    bundle(run, other)
    assert one.read_bytes() == other.read_bytes()
    with zipfile.ZipFile(one) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "unpacked")
    there = {path.relative_to(run) for path in run.rglob("*") if path.is_file()}
    assert {f"{run.name}/{path}" for path in there if path.parts[0] != "arms"} == set(names)
    assert len(names) == files and size > 0
    unpacked = tmp_path / "unpacked" / run.name
    assert verify(unpacked).problems == verify(run).problems


def test_what_cannot_be_bundled_is_said(finished: tuple[Report, Path], tmp_path: Path) -> None:
    _, run = finished
    (tmp_path / "there.zip").touch()
    with pytest.raises(UsageError, match="is there already"):
        bundle(run, tmp_path / "there.zip")
    begun = tmp_path / "begun"
    shutil.copytree(run, begun)
    (begun / "report.json").unlink()
    with pytest.raises(UsageError, match="finish the audit first"):
        bundle(begun, tmp_path / "new.zip")
    with pytest.raises(UsageError):
        bundle(tmp_path, tmp_path / "new.zip")
    assert not (tmp_path / "new.zip").exists()
