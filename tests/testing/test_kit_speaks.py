"""What keeps a plugin from being used is said once, in a sentence with the mend."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import Once

pytestmark = pytest.mark.usefixtures("nano")

PLUGIN = '''
from typing import ClassVar
import numpy as np
import random
import torch
from auditor.plugin import Detection, Detector, OptionsModel, Reporter
from auditor.testing import DetectorConformance, ReporterConformance


def IMAGES(self, micro):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (8, 3, 32, 32), generator=generator, dtype=torch.uint8)


class Options(OptionsModel):
    threshold: float
    """From which on."""


class Bright(Detector):
    """Bright images."""

    name = "bright"
    summary = "bright images"

    def detect(self, images, concepts):
        scores = np.repeat(images.float().mean(dim=(1, 2, 3)).numpy()[:, None] / 255, len(concepts), axis=1)
        return Detection(scores >= 0.5, scores, ("x",) * len(images))


class Strict(Bright):
    """The same."""

    Options = Options


class Lucky(Bright):
    """The same, with a look at the dice."""

    stray: ClassVar = staticmethod(lambda: torch.rand(3))

    def detect(self, images, concepts):
        self.stray()
        return super().detect(images, concepts)


class LuckyNumpy(Lucky):
    """Of NumPy."""

    stray: ClassVar = staticmethod(lambda: np.random.rand())


class LuckyPython(Lucky):
    """Of Python."""

    stray: ClassVar = staticmethod(lambda: random.random())


class Gradients(Lucky):
    """It turns gradients off, or on again."""

    stray: ClassVar = staticmethod(lambda: torch.set_grad_enabled(not torch.is_grad_enabled()))


class Raises(Bright):
    """It raises."""

    def detect(self, images, concepts):
        raise KeyError("weights")


class Made(Bright):
    """It forgets its options."""

    def __init__(self, options):
        self.ready = True


class Untitled(Bright):
    """No summary."""

    summary = ""


class Plain(Reporter):
    """A reporter without the name of its file."""

    name = "plain"
    summary = "plain"

    def render(self, report, folder):
        return b"x"
'''

BROKEN = {
    "Strict": "'threshold' is missing. Write 'options = {…}' in TestStrict",
    "Lucky": "it drew from torch's global random numbers: give every torch.rand",
    "LuckyNumpy": "NumPy's global random numbers: draw from numpy.random.default_rng",
    "LuckyPython": "Python's random numbers: draw from a random.Random(seed) of its own",
    "Gradients": "it left gradients on or off: use 'with torch.no_grad():'",
    "Raises": "KeyError: 'weights'",
    "Made": "Made.__init__ does not call super().__init__(options).",
    "Untitled": "Untitled.summary is missing",
    "Plain": "Plain.filename is not set; give it a value in the class.",
    "None": "TestNone has no plugin: write 'plugin = YourClass' in it.",
}
"""What is wrong with a plugin, and what is said of it."""


def _kind(name: str) -> str:
    return "Reporter" if name == "Plain" else "Detector"


@pytest.fixture(scope="module")
def ran(nano: None, once: Once) -> ElementTree.Element:
    """The tests of all of them, run once as an author does."""

    def run(folder: Path) -> None:
        classes = [
            f"class Test{name}({_kind(name)}Conformance):\n    plugin = {name}\n    images = IMAGES\n"
            for name in ("Bright", *BROKEN)
        ]
        (folder / "test_it.py").write_text("\n\n".join([PLUGIN, *classes]))
        line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=found.xml"]
        subprocess.run(line, cwd=folder, check=False, capture_output=True)

    return ElementTree.parse(once("kit", run) / "found.xml").getroot()


def outcomes(ran: ElementTree.Element, name: str) -> tuple[Counter[str], str]:
    """How often the tests of a class passed, failed and were skipped; and the first words of what failed."""
    cases = [case for case in ran.iter("testcase") if case.get("classname", "").endswith(f".Test{name}")]
    found = Counter(next((child.tag for child in case), "passed") for case in cases)
    said = [child.get("message", "") for case in cases for child in case if child.tag in ("error", "failure")]
    return found, said[0] if said else ""


@pytest.mark.parametrize("name", BROKEN)
def test_one_sentence_and_the_mend(ran: ElementTree.Element, name: str) -> None:
    found, said = outcomes(ran, name)
    assert found["error"] == 1 and found["skipped"] >= 10, found
    assert not found["passed"] and not found["failure"]
    assert BROKEN[name] in said


def test_a_sound_plugin_runs_all(ran: ElementTree.Element) -> None:
    found, _ = outcomes(ran, "Bright")
    assert found.keys() == {"passed"} and found["passed"] >= 14
