"""Tables of what policies, reports and journals hold, made from their models.

``mkdocs`` writes them into the reference when the site is built (``site_hooks.py``).
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from auditor._journal import lines
from auditor.policy import Policy
from auditor.report import Report

_DOCS = Path(__file__).parent
_NO_MODELS = {"Outcome": "Outcome", "State": "State", "Cause": "[a cause](../inconclusive.md)"}
"""What is no table of keys, and how it is named."""
_MEANINGS: Mapping[str, Mapping[str, str]] = yaml.safe_load((_DOCS / "policy_keys.yaml").read_text("utf-8"))


def policy_reference() -> str:
    """The page of every policy key, Markdown."""
    return _POLICY_HEAD + "".join(_models(Policy, "Top level", _MEANINGS))


def report_reference() -> str:
    """The page of every key of ``report.json``, Markdown."""
    return _REPORT_HEAD + "".join(_models(Report, "Report"))


def journal_reference() -> str:
    """The page of every line of ``journal.jsonl``, Markdown."""
    found = [kind for union in get_args(lines.Line) for kind in get_args(union) or (union,)]
    kinds = [kind for kind in found if isinstance(kind, type) and issubclass(kind, lines.Record)]
    seen: set[type[BaseModel]] = set()
    return _JOURNAL_HEAD + "".join(text for kind in kinds for text in _models(kind, kind.__name__, seen=seen))


def models_of(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """``model`` and every model that its fields hold, each before what it holds."""
    seen: list[type[BaseModel]] = [model]
    for each in seen:
        held = (part for field in each.model_fields.values() for part in _parts(field.annotation))
        seen += [part for part in dict.fromkeys(held) if part not in seen]
    yield from seen


def _parts(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def _models(
    model: type[BaseModel],
    title: str,
    meanings: Mapping[str, Mapping[str, str]] | None = None,
    seen: set[type[BaseModel]] | None = None,
) -> Iterator[str]:
    seen = set() if seen is None else seen
    for each in models_of(model):
        if each in seen:
            continue
        seen.add(each)
        heading = title if each is model else each.__name__
        more = None if meanings is None else meanings[each.__name__]
        yield f"\n## {heading}\n\n{_text(inspect.getdoc(each) or '')}\n\n{_table(each, more)}"


def _table(model: type[BaseModel], meanings: Mapping[str, str] | None) -> str:
    schema = model.model_json_schema()
    documented = dict(_documented(model))
    rows = ["| key | type and range | default | meaning |", "|---|---|---|---|"]
    for key, value in schema["properties"].items():
        default = _default(value)
        if model.model_fields[key].default_factory is not None:
            default = "empty"
        if meanings is None:
            text = documented.get(key, "")
        else:
            text = " ".join(part for part in (meanings.get(key), documented.get(key)) if part)
        rows.append(f"| `{key}` | {_kind(value)} | {_cell(default)} | {_cell(_text(text))} |")
    return "\n".join(rows) + "\n"


def _default(schema: Mapping[str, Any]) -> str:
    if "default" not in schema:
        return "*needed*"
    value = schema["default"]
    return "as below" if isinstance(value, dict) and value else f"`{_plain(value)}`"


def _plain(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _kind(schema: Mapping[str, Any]) -> str:
    """What a value may be, in words."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return _NO_MODELS.get(name) or f"[{name}](#{name.lower()})"
    if "anyOf" in schema or "oneOf" in schema:
        return " or ".join(_kind(each) for each in schema.get("anyOf") or schema["oneOf"])
    if "const" in schema:
        return f"`{_plain(schema['const'])}`"
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return f"[{', '.join(_kind(each) for each in schema['prefixItems'])}]"
        return f"list of {_kind(schema['items'])}" if schema.get("items") else "list"
    if schema.get("type") == "object":
        held = schema.get("additionalProperties")
        return f"mapping to {_kind(held)}" if isinstance(held, dict) and held else "mapping"
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    return names.get(schema.get("type", ""), str(schema.get("type", "anything"))) + _range(schema)


def _range(schema: Mapping[str, Any]) -> str:
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{word} {schema[key]:g}" for key, word in words.items() if key in schema]
    return f" {', '.join(found)}" if found else ""


def _documented(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Each field with the string under it."""
    for parent in reversed(model.__mro__):
        if not issubclass(parent, BaseModel) or parent is BaseModel:
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(parent))).body
        assert isinstance(body, ast.ClassDef)
        for node, below in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                yield node.target.id, str(below.value.value)


def _text(documentation: str) -> str:
    return " ".join(documentation.split()).replace("``", "`")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


_POLICY_HEAD = """# Every key of a policy

This page has every key of a policy file with its type, range, default and meaning.

It is made from the code when the site is built. An unknown key is an error that names the nearest known one.
For a first policy read [Write a policy](../how-to/policy.md); `auditor policy init` writes one.
"""

_REPORT_HEAD = """# Every key of report.json

This page has every key of `report.json` with its type and meaning.

It is made from the code when the site is built; `auditor report schema` prints the same as a JSON schema.
A report carries `schema_version`. A version that an auditor cannot read is refused by name. What is made from
a report: [Reports and their forms](../reports.md).
"""

_JOURNAL_HEAD = """# Every line of journal.jsonl

This page has every kind of line in a run's `journal.jsonl` with its keys.

It is made from the code when the site is built. Each line is one JSON object; `kind` says which of the
records below it is. A line is on the disk before the next batch begins. With `--seal` each line also carries
its seal. Readers are strict: an unknown key or a value out of range is damage and ends with exit code 5.
"""
