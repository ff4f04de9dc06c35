"""Writes a new plugin package: what a third party starts from, complete, with tests that pass at once."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import jinja2

from auditor._files.entry_points import ENTRY_POINT_GROUP
from auditor._files.places import refuse_unwritable
from auditor._files.whole_files import on_disk, write_whole
from auditor.errors import UsageError
from auditor.plugin._loader import CONTRACTS, SINGULAR


def write_package(one: str, name: str, out: Path | None = None) -> Path:
    """Write a package with ``one`` plugin (``probe``, ``detector``, ...) called ``name`` to ``out`` and
    return where it is.

    Raises :class:`UsageError` where the name cannot be used or the folder is not empty.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UsageError(f"{name!r} cannot be a plugin's name; lower case letters, digits and hyphens can.")
    folder = out or Path(f"auditor-{name}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already; give a new folder with --out.")
    refuse_unwritable(folder)
    kind = next(kind for kind, singular in SINGULAR.items() if singular == one)
    package = f"auditor_{name.replace('-', '_')}"
    facts = {
        "one": one,
        "contract": CONTRACTS[kind].__name__.removeprefix("Any"),
        "name": name,
        "package": package,
        "distribution": f"auditor-{name}",
        "cls": "".join(part.capitalize() for part in name.split("-")),
        "group": ENTRY_POINT_GROUP,
    }
    files = {
        "pyproject.toml": "pyproject.toml.j2",
        "README.md": "README.md.j2",
        f"src/{package}/__init__.py": f"{one}.py.j2",
        f"tests/test_{package}.py": "test.py.j2",
    }
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(resources.files("auditor.testing") / "scaffold_files")),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - Python and TOML, from names that were checked above
    )
    with on_disk(folder):
        for path, template in files.items():
            write_whole(folder / path, templates.get_template(template).render(facts).encode())
    return folder
