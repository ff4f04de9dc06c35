"""What plugins are written with is in two places, and our own plugins need nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import auditor.plugin

PLUGINS = Path(__file__).parents[2] / "plugins"
SOURCES = sorted(PLUGINS.glob("auditor-*/**/*.py"))


def imported(path: Path) -> set[str]:
    """Modules of auditor that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name for name in found if name.split(".")[0] == "auditor"}


def test_there_are_three_plugin_distributions() -> None:
    assert len({path.relative_to(PLUGINS).parts[0] for path in SOURCES}) == 3


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_our_own_plugins_import_the_public_names_alone(path: Path) -> None:
    allowed = {"auditor.plugin"} | ({"auditor.testing"} if "tests" in path.parts else set())
    assert imported(path) <= allowed


def test_every_public_name_is_there_and_no_other() -> None:
    names = set(auditor.plugin.__all__)
    assert all(getattr(auditor.plugin, name) is not None for name in names)
    assert {each for home in auditor.plugin._HOMES.values() for each in home} | {
        "API_VERSION",
        "hookimpl",
    } == names
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = auditor.plugin.no_such_name


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, auditor.plugin, auditor.testing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
