"""``python -m tests.gpu.wheels FOLDER``: what ``make gpu`` needs on a machine that holds torch, torchvision,
transformers, accelerate, peft and scipy for Python 3.12 and reaches no index of packages."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEEDED = (
    *("diffusers", "importlib_metadata", "zipp"),
    *("open_clip_torch", "ftfy", "wcwidth"),
    *("pydantic", "pydantic_core", "annotated_types", "typing_inspection", "typing_extensions"),
    *("platformdirs", "pluggy", "click"),
    *("rich", "markdown_it_py", "mdurl", "pygments"),
)
"""Distributions by what brings them; nothing of torch's and transformers' own."""
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def pip(folder: Path) -> list[str]:
    """The command that puts them into ``folder``, whatever Python it is run by."""
    line = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--upgrade",
        "--no-compile",
        "--target",
        str(folder),
    ]
    line += ["--only-binary=:all:", "--no-deps", "--python-version", "3.12", "--implementation", "cp"]
    return [*line, *(part for name in _PLATFORMS for part in ("--platform", name)), *_wanted()]


def _wanted() -> list[str]:
    """With auditor's own lower bounds."""
    bounds = {each.split(">=")[0]: each for each in _project()["dependencies"]}
    return [bounds.get(name, name) for name in NEEDED]


def _project() -> dict[str, list[str]]:
    found: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def write_own(folder: Path) -> Path:
    """auditor's own entry in ``folder``: its version is asked for, its code is the checkout's."""
    version = _project()["version"]
    own = folder / f"auditor-{version}.dist-info"
    own.mkdir(parents=True, exist_ok=True)
    (own / "METADATA").write_text(f"Metadata-Version: 2.1\nName: auditor\nVersion: {version}\n")
    return own


if __name__ == "__main__":
    subprocess.run(pip(Path(sys.argv[1])), check=True)
    write_own(Path(sys.argv[1]))
