"""An audit where home, cache or the run's folder are not as usual."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import auditor
from auditor.errors import UsageError
from auditor.report import Report
from tests.conftest import SMALL, policy_file
from tests.files.test_places import SHARE

pytestmark = pytest.mark.usefixtures("nano")


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_without_a_cache_the_audit_goes_on_and_says_so(erased: Path, tmp_path: Path) -> None:
    """A home below which nothing can be written, on a share without locks and modes, in a CI's subfolder."""
    (tmp_path / "share.c").write_text(SHARE)
    line = ["cc", "-shared", "-fPIC", "-o", str(tmp_path / "share.so"), str(tmp_path / "share.c"), "-ldl"]
    subprocess.run(line, check=True)
    (tmp_path / "file").write_text("")
    policy_file(tmp_path, budget=SMALL)
    kept = {
        name: value for name, value in os.environ.items() if name not in ("AUDITOR_CACHE", "XDG_CACHE_HOME")
    }
    more = {"HOME": str(tmp_path / "file"), "LD_PRELOAD": str(tmp_path / "share.so"), "LACKS": "files"}
    command = [
        sys.executable,
        "-m",
        "auditor",
        "audit",
        str(erased),
        "--policy",
        "policy.yaml",
        "--out",
        "run",
    ]
    for _ in range(2):
        done = subprocess.run(
            [*command, "--report", "sarif"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=kept | more | {"GITHUB_WORKSPACE": str(tmp_path.parent)},
        )
        assert done.returncode == 3, done.stderr
        report = Report.model_validate_json((tmp_path / "run" / "report.json").read_bytes())
        said = [text.split(":")[0] for text in report.provenance.warnings]
        assert said == [
            "run is on a file system without locks",
            "Attempts could not be counted",
            "Pictures of the base are not kept for later audits",
        ]
        assert report.provenance.attempt == 1
    run = json.loads((tmp_path / "run" / "report.sarif").read_text())["runs"][0]
    places = {
        result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in run["results"]
    }
    assert places == {f"{tmp_path.name}/policy.yaml"}
    assert run["automationDetails"]["id"].startswith(f"auditor/{tmp_path.name}/policy.yaml/")


@pytest.mark.parametrize("out", ["file/run", "file", "n" * 300])
def test_a_folder_that_cannot_be_written_is_refused_before_a_checkpoint_is_looked_for(
    tmp_path: Path, out: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=str(tmp_path / out)):
        auditor.audit("nowhere", policy_file(tmp_path, budget=SMALL), tmp_path / out)
    with pytest.raises(UsageError, match="There is no checkpoint at nowhere"):
        auditor.audit("nowhere", policy_file(tmp_path, budget=SMALL), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("where", ["file/erased", "file/deep/erased"])
def test_an_erased_checkpoint_is_refused_a_place_below_a_file(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=str(tmp_path / where)):
        auditor.erase("nowhere", "micro-person", "esd", tmp_path / where)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs to become nobody")
@pytest.mark.parametrize(
    "home",
    [
        [],
        pytest.param(["HOME="], marks=pytest.mark.science),
        pytest.param(["HOME=/"], marks=pytest.mark.science),
    ],
)
def test_a_user_without_account_and_home_plans_all_the_same(home: list[str]) -> None:
    rights = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    command = [sys.executable, "-m", "auditor", "policy", "explain", "micro-person"]
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH")}
    done = subprocess.run(
        [
            "setpriv",
            "--reuid",
            "12345",
            "--regid",
            "12345",
            "--clear-groups",
            *rights,
            "env",
            *home,
            *command,
        ],
        capture_output=True,
        text=True,
        check=False,
        env=kept,
        cwd="/",
    )
    assert (done.returncode, done.stderr) == (0, "") and "Minutes are not known" in done.stdout
