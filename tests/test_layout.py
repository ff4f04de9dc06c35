"""The house stays one that a stranger can read: few rooms, short files, tests where the code is, one word
for one idea."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from auditor.report.words import control_title

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "auditor"
ROOMS = sorted(path for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__")
MODULES = sorted(SOURCE.rglob("*.py"))


def test_there_are_at_most_twenty_rooms() -> None:
    files = [path for path in SOURCE.glob("*.py") if path.name != "__init__.py"]
    assert len(ROOMS) + len(files) <= 20


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_every_room_has_tests_of_its_name(room: Path) -> None:
    tests = ROOT / "tests" / room.name.removeprefix("_")
    assert list(tests.rglob("test_*.py")), f"{tests} holds no test"


def test_no_file_is_longer_than_350_lines() -> None:
    long = {
        str(path.relative_to(SOURCE)): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES
    }
    assert not {name: lines for name, lines in long.items() if lines > 350}


def imported(path: Path) -> Iterator[str]:
    """The full names of what a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_family_is_known_but_by_the_registry() -> None:
    families = SOURCE / "families"
    own = {path for path in families.rglob("*.py") if path.parent != families}
    names = {f"auditor.families.{path.parent.name}." for path in own if path.parent.name != "clip"}
    assert names == {"auditor.families.stable_diffusion."}
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in set(MODULES) - own
        if any(f"{name}.".startswith(tuple(names)) for name in imported(path))
    }
    assert found == {"families/registry.py"}


def public(tree: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Functions and classes that can be reached without an underscore; what pytest collects speaks by its
    name."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith(("_", "test_")):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node)


def test_what_is_public_is_documented() -> None:
    found = [node for path in MODULES for node in public(ast.parse(path.read_text(encoding="utf-8")))]
    bare = [node.name for node in found if not ast.get_docstring(node)]
    assert len(found) > 800 and len(bare) <= 0.05 * len(found), bare


def test_the_floor_plan_names_every_room() -> None:
    plan = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert not [room.name for room in ROOMS if f"`{room.name}/`" not in plan]


def test_every_word_that_forms_use_for_a_control_is_in_the_glossary() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \|.*\| ([^|]*) ?\|$", glossary, re.MULTILINE)
    explained = {word for words, _ in rows for word in words.split(", ")}
    keys = {key for _, cell in rows for key in re.findall(r"`(\w+)`", cell)}
    words = (SOURCE / "report" / "words.py").read_text(encoding="utf-8")
    names = re.findall(r'^    "([a-z ]+)": "[a-z -]+",$', words, re.MULTILINE)
    assert len(names) == 11
    assert not [name for name in names if control_title(name) not in explained]
    assert not [name for name in names if control_title(name) != name and name not in keys]
