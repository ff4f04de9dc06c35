"""Writes ``docs/plugin-reference.md`` from hook specifications and contracts.

``python docs/make_plugin_reference.py > docs/plugin-reference.md``
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator

import auditor.plugin
from auditor.plugin import API_VERSION, contracts, hookspecs, options, records
from auditor.plugin.contracts import detectors, erasers, outputs, plugins, probes

_KINDS = (options, plugins, detectors, probes, erasers, outputs)

_HEAD = f"""# Plugin reference, API {API_VERSION}

Made by `python docs/make_plugin_reference.py`; a test holds it to the code.
How to begin: [Writing a plugin](plugins.md). Import what is below with `from auditor.plugin import …`.
"""


def reference() -> str:
    """The whole page, Markdown."""
    helpers = ["", "## Helpers", "", *_helpers()]
    return "\n".join([_HEAD, "## Hooks", *_hooks(), "", "## Contracts", *_classes(), *helpers]) + "\n"


def _hooks() -> Iterator[str]:
    for name, function in inspect.getmembers(hookspecs, inspect.isfunction):
        if hasattr(function, "auditor_spec"):
            yield f"\n### `{name}{_signature(function)}`\n\n{_one_line(function)}"


def _classes() -> Iterator[str]:
    for module in (*_KINDS, records):
        for name, found in vars(module).items():
            own = inspect.isclass(found) and found.__module__ == module.__name__
            if own and name == found.__name__:  # not another name of it
                yield from _class(name, found)


def _class(name: str, found: type) -> Iterator[str]:
    base = next(
        (parent.__name__ for parent in found.__bases__ if parent.__module__.startswith(contracts.__name__)),
        "",
    )
    yield f"\n### {name}{f' ({base})' if base else ''}\n\n{inspect.getdoc(found)}\n"
    yield from _attributes(found)
    for member, function in vars(found).items():
        wrapped = function.fget if isinstance(function, property) else function
        if inspect.isfunction(wrapped) and not member.startswith("_") and wrapped.__doc__:
            kind = "property " if isinstance(function, property) else ""
            must = " *(must be defined)*" if getattr(function, "__isabstractmethod__", False) else ""
            yield f"- {kind}`{member}{_signature(wrapped)}`{must}: {_one_line(wrapped)}"


def _attributes(found: type) -> Iterator[str]:
    """Annotated attributes with the string under them, where there is one."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(found))).body
    assert isinstance(body, ast.ClassDef)
    for number, node in enumerate(body.body):
        if not isinstance(node, ast.AnnAssign):
            continue
        below = body.body[number + 1] if number + 1 < len(body.body) else None
        text = ""
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            text = f": {' '.join(str(below.value.value).split())}"
        yield f"- `{ast.unparse(node)}`{text}"


def _helpers() -> Iterator[str]:
    """What else can be imported from ``auditor.plugin``."""
    for name in auditor.plugin.__all__:
        found = getattr(auditor.plugin, name)
        if getattr(found, "__module__", "") in (options.__name__, contracts.__name__, records.__name__):
            continue
        if inspect.isfunction(found):
            yield f"- `{name}{_signature(found)}`: {_one_line(found)}"
        elif inspect.isclass(found):
            yield f"- `{name}`: {_one_line(found)}"


def _signature(function: object) -> str:
    text = str(inspect.signature(function))  # type: ignore[arg-type]
    text = re.sub(r"<function <lambda> at \w+>", "…", text)
    return (
        text.replace("'", "").replace("auditor.plugin.contracts.", "").replace("auditor.plugin.records.", "")
    )


def _one_line(documented: object) -> str:
    return " ".join((inspect.getdoc(documented) or "").split())


if __name__ == "__main__":
    sys.stdout.write(reference())
