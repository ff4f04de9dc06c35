"""Writes ``docs/plugin-reference.md`` from hook specifications and contracts: ``python -m auditor.plugin.reference > FILE``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

from auditor.plugin import API_VERSION, contracts, hookspecs

_HEAD = f"""# Plugin reference, API {API_VERSION}

Made from `auditor.plugin.hookspecs` and `auditor.plugin.contracts` by `python -m auditor.plugin.reference`; a test holds it to them.
How to begin: [Writing a plugin](plugins.md).
"""


def reference() -> str:
    """The whole page, Markdown."""
    return "\n".join([_HEAD, "## Hooks", *_hooks(), "", "## Contracts", *_classes()]) + "\n"


def _hooks() -> Iterator[str]:
    for name, function in inspect.getmembers(hookspecs, inspect.isfunction):
        if hasattr(function, "auditor_spec"):
            yield f"\n### `{name}{_signature(function)}`\n\n{inspect.getdoc(function)}"


def _classes() -> Iterator[str]:
    for name, found in vars(contracts).items():
        if not inspect.isclass(found) or found.__module__ != contracts.__name__:
            continue
        base = next((parent.__name__ for parent in found.__bases__ if parent.__module__ == contracts.__name__), "")
        yield f"\n### {name}{f' ({base})' if base else ''}\n\n{inspect.getdoc(found)}\n"
        source = inspect.getsource(found).splitlines()
        yield from _attributes(source)
        for member, function in vars(found).items():
            wrapped = function.fget if isinstance(function, property) else function
            if inspect.isfunction(wrapped) and not member.startswith("_") and wrapped.__doc__:
                kind = "property " if isinstance(function, property) else ""
                must = " *(must be defined)*" if getattr(function, "__isabstractmethod__", False) else ""
                yield f"- {kind}`{member}{_signature(wrapped)}`{must}: {_one_line(inspect.getdoc(wrapped))}"


def _attributes(source: list[str]) -> Iterator[str]:
    """Annotated attributes with the string under them, where there is one."""
    for number, line in enumerate(source):
        declared, _, rest = line.strip().partition(": ")
        if not line.startswith("    ") or line.startswith("     ") or not declared.isidentifier() or not rest:
            continue
        following = source[number + 1].strip() if number + 1 < len(source) else ""
        text = f": {following.strip(chr(34))}" if following.startswith('"""') else ""
        yield f"- `{line.strip()}`{text}"


def _signature(function: object) -> str:
    return str(inspect.signature(function)).replace("'", "").replace("auditor.plugin.contracts.", "")  # type: ignore[arg-type]


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


if __name__ == "__main__":
    sys.stdout.write(reference())
