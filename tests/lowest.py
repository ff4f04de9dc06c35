"""Prints the lowest version of every dependency that ``pyproject.toml`` allows, as constraints for pip.

``make lowest`` installs exactly these and runs the main job on them.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lowest() -> Iterator[str]:
    """``name==version`` for every dependency and every one of the extras ``fid`` and ``study``."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for line in (*project["dependencies"], *extras["fid"], *extras["study"]):
        wanted = Requirement(line)
        floors = [each.version for each in wanted.specifier if each.operator == ">="]
        if len(floors) != 1:
            raise SystemExit(f"pyproject.toml: '{line}' names no lowest version.")
        yield f"{wanted.name}=={floors[0]}"


if __name__ == "__main__":
    sys.stdout.write("\n".join(lowest()) + "\n")
