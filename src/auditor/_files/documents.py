"""Reads YAML strictly and turns validation errors into sentences with a line number.

YAML is a larger language than a policy needs: duplicate keys, aliases and ``.nan`` are refused here
(safety.md S7). A plain word is a number, a truth value or null by the core schema of YAML 1.2, less numbers
that begin with 0. Those, ``1:30``, ``1_000``, ``yes``, ``off`` and dates are text, which is refused where a
number or a truth value is asked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from auditor._files.nearest import beside, hint
from auditor.errors import PolicyError, UsageError

Model = TypeVar("Model", bound=BaseModel)


_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")

_TAG = "tag:yaml.org,2002:"

_PLAIN = {
    "null": _NULL,
    "bool": _BOOL,
    "int": _WHOLE,
    "float": re.compile(f"{_NUMBER.pattern}|{_NOT_FINITE.pattern}"),
}
"""What a plain word is, the first that fits; text where none does."""


class _StrictLoader(yaml.SafeLoader):
    """YAML's core, less aliases, duplicate keys and numbers that are not finite."""

    yaml_constructors: ClassVar[dict[Any, Any]] = {}

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> Any:
        """The tag of a node that has none of its own."""
        if kind is yaml.ScalarNode and implicit[0]:
            return _TAG + next((name for name, form in _PLAIN.items() if form.fullmatch(value)), "str")
        return super().resolve(kind, value, implicit)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse aliases."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="aliases (*name) are not allowed", problem_mark=self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key that stands twice."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key '{key}' stands twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping

    def construct_plain(self, node: yaml.ScalarNode) -> Any:
        """A truth value, a number or null; also where a tag (``!!int 010``) says what it is to be."""
        name, value = node.tag.removeprefix(_TAG), str(self.construct_scalar(node))
        if not _PLAIN[name].fullmatch(value):
            raise yaml.MarkedYAMLError(problem=f"{value!r} is no {name}", problem_mark=node.start_mark)
        if _NOT_FINITE.fullmatch(value) or (name == "float" and not math.isfinite(float(value))):
            raise yaml.MarkedYAMLError(
                problem=f"{value} is not a finite number", problem_mark=node.start_mark
            )
        if name == "null":
            return None
        if name == "bool":
            return value.lower() == "true"
        return float(value) if name == "float" else int(value, 0)


for _name in _PLAIN:
    _StrictLoader.add_constructor(_TAG + _name, _StrictLoader.construct_plain)
for _name in ("str", "seq", "map"):
    _StrictLoader.add_constructor(_TAG + _name, yaml.SafeLoader.yaml_constructors[_TAG + _name])
_StrictLoader.add_constructor(None, yaml.SafeLoader.yaml_constructors[None])


@dataclass(frozen=True)
class Document:
    """A YAML file that was read once: its nodes, which know their lines, and what it says."""

    path: Path
    root: yaml.Node | None
    data: dict[str, Any]

    def line_of(self, *location: str | int) -> int:
        """The line, from 1, of what stands at ``location``, or of the deepest part of it that is there."""
        return _place_of(self.root, location)[1]

    def read_as(
        self, model: type[Model], data: dict[str, Any] | None = None, also: Sequence[Path] = ()
    ) -> Model:
        """What it says as a ``model``; arguments and errors are those of :func:`read_yaml`."""
        try:
            return model.model_validate(self.data if data is None else data)
        except ValidationError as error:
            found = error.errors(include_url=False)
            # a misspelt key explains a missing one
            first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
            more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
            where, (depth, line, own) = self.path, _place_of(self.root, first["loc"])
            for other in () if own else also:
                deeper = _place_of(read_document(other).root, first["loc"])
                where, depth, line = (other, *deeper[:2]) if deeper[0] > depth else (where, depth, line)
            raise PolicyError(f"{where}:{line}: {sentence_of(first, model)}{more}") from error


def read_yaml(
    path: Path, model: type[Model], data: dict[str, Any] | None = None, also: Sequence[Path] = ()
) -> Model:
    """Read ``path`` as a ``model``; ``data`` is what it says once it was completed from other files
    (``also``).

    Raises :class:`UsageError` where the file cannot be read and :class:`PolicyError`, with file and line,
    where its content does not fit; for an unknown key it names the nearest known one.
    """
    return read_document(path).read_as(model, data, also)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read ``path`` as a mapping whose keys are checked elsewhere."""
    return read_document(path).data


def parse_scalar(text: str) -> Any:
    """One value as YAML reads it: ``3`` is a number, ``true`` a truth value, ``[a, b]`` a list."""
    try:
        return _StrictLoader(text).get_single_data()
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{text!r} is no value: {getattr(error, 'problem', None) or error}.") from error


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` pairs of a command line, each value as YAML reads it."""
    options: dict[str, Any] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign:
            raise UsageError(f"--option {pair!r} is no KEY=VALUE.")
        options[key] = parse_scalar(value)
    return options


def read_document(path: Path) -> Document:
    """Read ``path``. Raises :class:`UsageError` where it cannot be read and :class:`PolicyError` where it is
    no mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        near = "" if path.exists() else beside(path)
        raise UsageError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error}.{near}") from error
    try:
        loader = _StrictLoader(text)
        root = loader.get_single_node()
        data = loader.construct_document(root) if root is not None else None
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        line = f":{mark.line + 1}" if mark else ""
        raise PolicyError(
            f"{path}{line}: not a valid document: {problem or str(error).splitlines()[0]}."
        ) from error
    if not isinstance(data, dict):
        raise PolicyError(f"{path}: expected a mapping of keys, found {type(data).__name__}.")
    return Document(path, root, data)


def sentence_of(error: Mapping[str, Any], model: type[BaseModel]) -> str:
    """One pydantic error as one sentence; an unknown key comes with the nearest known key."""
    where = ".".join(str(part) for part in error["loc"]) or "document"
    if error["type"] == "extra_forbidden":
        known = _keys_at(model, error["loc"][:-1])
        return f"unknown key '{where}'; {hint(str(error['loc'][-1]), known, 'known keys')}"
    if error["type"] == "missing":
        return f"'{where}' is missing."
    message = str(error["msg"]).removeprefix("Value error, ").rstrip(".")
    given = error.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) or given is None else ""
    return f"'{where}': {message[0].lower() + message[1:]}{shown}{_hint(str(error['type']), given)}."


def _hint(kind: str, given: Any) -> str:
    """How to write what was meant, where YAML reads a plain word as something else."""
    if kind == "string_type" and (given is None or isinstance(given, bool | int | float)):
        return "; put it in quotes where the word is meant"
    if not isinstance(given, str):
        return ""
    if kind.startswith(("int_", "float_")):
        return "; numbers are plain decimal ones, without quotes, leading zeros, colons or underscores"
    if kind.startswith("bool_"):
        return "; write true or false, without quotes"
    return ""


def _place_of(node: yaml.Node | None, location: Sequence[str | int]) -> tuple[int, int, bool]:
    """How many parts of ``location`` the document has, the line, from 1, of the deepest, and whether what is
    there is this document's.

    It is not where the document only names something that another one lays out.
    """
    depth, line = 0, 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if pair is None:
                continue  # a union member's name or a missing key: not in the document
            depth, line, node = depth + 1, pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            depth, line = depth + 1, node.start_mark.line + 1
    return depth, line, depth == len(location) or (depth > 0 and isinstance(node, yaml.MappingNode))


def _keys_at(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    current: Any = model
    for part in location:
        if isinstance(part, str) and isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(part)
            current = field.annotation if field else None
        arguments = getattr(current, "__args__", ())
        current = next((a for a in arguments if isinstance(a, type) and issubclass(a, BaseModel)), current)
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []
