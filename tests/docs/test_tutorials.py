"""The two tutorials are followed: their files are written as they stand, their commands run, their plugins
are a row in a report."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from auditor.report.compare import read_report
from tests.faults.forks import Forks

pytestmark = pytest.mark.usefixtures("nano")

EXTEND = Path(__file__).parents[2] / "docs" / "extend"
TESTS_OF_MY_OWN = """
from auditor.testing import ProbeConformance
from keys_only import KeysOnly


class TestKeysOnly(ProbeConformance):
    plugin = KeysOnly
    options = {"candidates": ["Yara Belmos", "Milo Kravant"], "names": 2}
"""


class Follower:
    """Somebody who follows a tutorial in a folder where the erased checkpoint lies and nothing else."""

    def __init__(self, page: str, folder: Path, erased: Path, forks: Forks) -> None:
        self.text = (EXTEND / page).read_text(encoding="utf-8")
        self.folder, self.forks = folder, forks
        (folder / "erased").symlink_to(erased)
        for name, block in re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", self.text, re.DOTALL):
            (folder / name).write_text(block)

    def python(self, code: str, *command: str, ends_with: int = 0) -> str:
        """Run ``code``, then ``auditor`` with ``command``, in a process of its own."""
        here = f"import os, sys; os.chdir({str(self.folder)!r}); sys.path.insert(0, '')\n"
        here += f"os.environ['AUDITOR_CACHE'] = {str(self.folder / 'cache')!r}\n"
        done = self.forks.run(*(command or ("--version",)), prelude=here + code, seconds=300)
        assert done.code == ends_with, done.said
        return done.said

    def script(self, name: str) -> None:
        self.python(f"import runpy; runpy.run_path({name!r})")

    def tests(self, *options: str) -> None:
        """Run the page's tests."""
        (line,) = [line for line in self.text.splitlines() if line.startswith("python -m pytest")]
        arguments = [*shlex.split(line)[3:], "-q", "-p", "no:cacheprovider", *options]
        self.python(f"import pytest; assert pytest.main({arguments!r}) == 0")

    def command(self, begins: str, ends_with: int = 0) -> str:
        """The only command of the page that begins so."""
        (line,) = [line for line in self.text.splitlines() if line.startswith(begins)]
        return self.python("", *shlex.split(line)[1:], ends_with=ends_with)


def test_a_lora_from_a_folder_of_pictures_is_a_probe(tmp_path: Path, erased: Path, forks: Forks) -> None:
    follower = Follower("lora-probe.md", tmp_path, erased, forks)
    follower.script("pictures.py")
    assert "house-style (probe, house_style.py" in follower.command("auditor plugins show")
    follower.command("auditor audit", ends_with=3)
    report = read_report(tmp_path / "run")
    assert {cell.arm for cell in report.cells} == {"base", "erased", "house-style-lora"}
    effect = {control.name: control.passed for control in report.controls if "house" in control.arm}
    assert effect["potent"] and effect["sham"]
    assert report.training[0].concepts == () and report.training[0].images > 0
    follower.tests(
        "--deselect", "test_house_style.py::TestHouseStyle::test_in_company_it_learns_what_it_learns_alone"
    )


def test_a_training_loop_of_ones_own_is_a_probe(tmp_path: Path, erased: Path, forks: Forks) -> None:
    follower = Follower("lora-probe.md", tmp_path, erased, forks)
    (tmp_path / "test_house_style.py").write_text(TESTS_OF_MY_OWN)
    follower.tests()


def test_a_classifier_is_a_detector(tmp_path: Path, erased: Path, forks: Forks) -> None:
    follower = Follower("classifier-detector.md", tmp_path, erased, forks)
    follower.script("train.py")
    follower.command("auditor audit", ends_with=3)
    report = read_report(tmp_path / "run")
    assert report.provenance.plugins["detectors/my-classifier"].startswith("my_classifier.py sha256:")
    (base,) = [cell for cell in report.cells if cell.arm == "base"]
    assert base.hits >= 0.8 * base.images > 0, "it sees what the base draws"
    assert any(row.detector == "clip-zero-shot" for row in report.other_detectors)
    follower.tests()
