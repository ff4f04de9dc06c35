"""Policies as files: one is read once, from where it was named, or a bundled one by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from auditor._files.bundled import bundled_names, bundled_policy
from auditor._files.documents import Document, read_document
from auditor._files.nearest import beside, near_paths, nearest
from auditor._files.relative_paths import relative_to
from auditor.errors import UsageError
from auditor.policy.concepts.prompt_file import prompt_files_of
from auditor.policy.concepts.sets import resolve_names
from auditor.policy.document import Policy, names_in


@dataclass(frozen=True)
class PolicyFile:
    """A policy as it stands in a file that was read once: where (``path``, as it was given), the line, from
    1, that names each concept, and what was made of the rows of prompt files, in sentences."""

    policy: Policy
    path: Path | str
    lines: Mapping[str, int]
    rows: tuple[str, ...] = ()


def read_policy(path: Path | str) -> PolicyFile:
    """Read a policy from a file, or a bundled one by its name (``micro-person``).

    Raises :class:`UsageError` where it cannot be read and :class:`PolicyError` where it is no policy.
    """
    file = _file_of(path)
    document = read_document(file)
    folder = file.parent if file == Path(path) else None  # a bundled one has none
    with relative_to(folder):
        with prompt_files_of(names_in(document.data)) as prompts:
            policy = document.read_as(Policy).found_in(folder)
        return PolicyFile(policy, path, _lines(document), tuple(prompts.sentences()))


def _lines(document: Document) -> dict[str, int]:
    """The line, from 1, that names each concept."""
    lines = dict[str, int]()
    for key in ("erase", "retain"):
        for at, entry in enumerate(document.data.get(key) or ()):
            try:
                names = resolve_names(entry["names"]) if "names" in entry else [entry["name"]]
            except (
                ValueError
            ):  # a file of names that changed since, or was a pipe: findings go without its lines
                continue
            lines |= dict.fromkeys((str(name).strip() for name in names), document.line_of(key, at))
    return lines


def load_policy(path: Path | str) -> Policy:
    """The policy in a file, or a bundled one by its name; errors are those of :func:`read_policy`."""
    return read_policy(path).policy


def _file_of(path: Path | str) -> Path:
    file = Path(path)
    if file.exists():
        return file
    found = bundled_policy(str(path)) if file.suffix == "" else None
    if found is None and file.name != str(path):  # a path: it is none of the bundled ones
        raise UsageError(f"Cannot read {path}: No such file or directory.{beside(file)}")
    if found is None:
        known = bundled_names()
        named = [file.stem] if file.stem in known else nearest(file.stem, known)
        near = [*named, *near_paths(file)] if file.stem in known else [*near_paths(file), *named]
        which = f" Did you mean {' or '.join(map(repr, near[:3]))}?" if near else ""
        raise UsageError(
            f"Cannot read {path}: there is no such file, and no bundled policy is called so.{which} Bundled: "
            f"{', '.join(known)} ('auditor policy list')."
        )
    return found
