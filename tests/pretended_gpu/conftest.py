"""The cases, each run once a session: those of the small world in one process, every other in its own."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Once
from tests.nano import SITE
from tests.pretended_gpu.walking import Walked

ROOT = Path(__file__).parents[2]
SMALL = ("drawing", "training", "cards", "no_memory", "refused", "cache", "esd")


@pytest.fixture
def walked(once: Once) -> Walked:
    """What a case found on the small world."""

    def found(case: str, *more: str) -> dict[str, Any]:
        name = ",".join((case, *more))
        cases = SMALL if name in SMALL else (name,)
        folder = once(f"pretended-gpu-{cases[0]}", functools.partial(_walk, cases=cases))
        result: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        if "broke" in result:  # no failed assertion: what is expected to fail must not fail for this
            raise RuntimeError(f"The case {name} broke:\n{result['broke']}")
        return result

    return found


def _walk(folder: Path, cases: tuple[str, ...]) -> None:
    paths = [str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])]
    line = [
        sys.executable,
        "-m",
        "tests.pretended_gpu",
        "-m",
        "tests.pretended_gpu.cases",
        str(folder),
        *cases,
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(line, capture_output=True, text=True, timeout=1000, cwd=ROOT, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
