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
from auditor._diffusion.closed_form import Solution
from auditor._files.safetensors_header import Header
from auditor.families.family import Noising
from auditor.plugin import API_VERSION, contracts, hookspecs, options, records
from auditor.plugin.contracts import detectors, erasers, outputs, plugins, probes

_KINDS = (options, plugins, detectors, probes, erasers, outputs)

_DOCUMENTS = {
    "Concept": "[Concept](reference/policy-keys.md#concept)",
    "Policy": "[the policy](reference/policy-keys.md)",
    "Report": "[report.json](reference/report-keys.md)",
    "Sample": "[the journal](reference/journal.md#sample)",
    "Sampler": "[Sampler](reference/policy-keys.md#sampler)",
}
"""Documents with a reference of their own."""

_NAMED = (Noising, Header, Solution)
"""Types that signatures name and nobody imports."""

_ELSEWHERE = {
    "Tensor": "torch's.",
    "Image": "Pillow's module; a picture is an `Image.Image`.",
    "Observer": "A function of the timestep and the latents (N, C, H, W); what it returns is ignored.",
    "Family": "What `DiffusionModel` asks of its model family; plugins use the model's own methods.",
}
"""Other names in signatures."""

_OTHERS = {
    "API_VERSION": "The number of this API; it is in the entry point's group, `auditor.v1`.",
    "ConceptNames": "A type for options: a list of names, the name of a bundled set, or `{file: FILE}`.",
    "PromptTemplates": "A type for options: templates with one `{}` each, or the name of a bundled set.",
    "Probe": "The older name of `WeightProbe`.",
    "hookimpl": "Marks a function as an implementation of one of the hooks above.",
}

_HEAD = f"""# Plugin reference, API {API_VERSION}

This page has every hook, contract, type and helper that a plugin is written with.

It is made by `python docs/make_plugin_reference.py`; a test holds it to the code.
How to begin: [Writing a plugin](plugins.md). Import what is below with `from auditor.plugin import …`.
"""


def reference() -> str:
    """The whole page, Markdown."""
    types = ["", "## Types", *_types()]
    helpers = ["", "## Helpers", "", *_helpers()]
    return "\n".join([_HEAD, "## Hooks", *_hooks(), "", "## Contracts", *_classes(), *types, *helpers]) + "\n"


def _hooks() -> Iterator[str]:
    for name, function in inspect.getmembers(hookspecs, inspect.isfunction):
        if hasattr(function, "auditor_spec"):
            yield f"\n### {name}\n\n`{name}{_signature(function)}`: {_one_line(function)}"


def _classes() -> Iterator[str]:
    for module in (*_KINDS, records):
        for name, found in vars(module).items():
            own = inspect.isclass(found) and found.__module__ == module.__name__
            if own and name == found.__name__:  # not another name of it
                yield from _class(name, found)


def _types() -> Iterator[str]:
    """What contracts and helpers take and give beside the contracts themselves."""
    told = {module.__name__ for module in (*_KINDS, records)}
    for name in auditor.plugin.__all__:
        found = getattr(auditor.plugin, name)
        if inspect.isclass(found) and found.__module__ not in told and found.__name__ == name:
            yield from _class(name, found)
            if name in _DOCUMENTS:
                yield f"\nEvery key: {_DOCUMENTS[name]}."
    for found in _NAMED:
        yield from _class(found.__name__, found)
    yield "\n### Other names in signatures\n"
    yield from (f"- `{name}`: {text}" for name, text in _ELSEWHERE.items())


def _class(name: str, found: type) -> Iterator[str]:
    base = next(
        (parent.__name__ for parent in found.__bases__ if parent.__module__.startswith(contracts.__name__)),
        "",
    )
    yield f"\n### {name}\n\n{f'A [{base}](#{base.lower()}). ' if base else ''}{_markdown(found)}\n"
    if name not in _DOCUMENTS:
        yield from _attributes(found)
    for member, function in vars(found).items():
        wrapped = function.fget if isinstance(function, property) else function
        wrapped = wrapped.__func__ if isinstance(wrapped, classmethod) else wrapped
        own = inspect.isfunction(wrapped) and wrapped.__module__ == found.__module__
        if own and not member.startswith("_") and wrapped.__doc__:
            kind = {property: "property ", classmethod: "class method "}.get(type(function), "")
            must = " *(must be defined)*" if getattr(function, "__isabstractmethod__", False) else ""
            yield f"- {kind}`{member}{_signature(wrapped)}`{must}: {_one_line(wrapped)}"


def _attributes(found: type) -> Iterator[str]:
    """Annotated attributes with the string under them, where there is one."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(found))).body
    assert isinstance(body, ast.ClassDef)
    for number, node in enumerate(body.body):
        if not isinstance(node, ast.AnnAssign) or ast.unparse(node.target).startswith("_"):
            continue
        below = body.body[number + 1] if number + 1 < len(body.body) else None
        text = ""
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            text = f": {_plain(' '.join(str(below.value.value).split()))}"
        yield f"- `{ast.unparse(node)}`{text}"


def _helpers() -> Iterator[str]:
    """What can be imported from ``auditor.plugin`` and is no class."""
    for name in auditor.plugin.__all__:
        found = getattr(auditor.plugin, name)
        if inspect.isfunction(found):
            yield f"- `{name}{_signature(found)}`: {_one_line(found)}"
        elif name in _OTHERS:
            yield f"- `{name}`: {_OTHERS[name]}"


def _signature(function: object) -> str:
    text = str(inspect.signature(function))  # type: ignore[arg-type]
    text = re.sub(r"<function <lambda> at \w+>", "…", text)
    return (
        text.replace("'", "").replace("auditor.plugin.contracts.", "").replace("auditor.plugin.records.", "")
    )


def _one_line(documented: object) -> str:
    return " ".join(_markdown(documented).split())


def _markdown(documented: object) -> str:
    return _plain(inspect.getdoc(documented) or "")


def _plain(text: str) -> str:
    """Docstrings' roles and double backticks as Markdown has them."""
    return re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text).replace("``", "`")


if __name__ == "__main__":
    sys.stdout.write(reference())
