"""Reads prompt sets as the field's evaluation files hold them: ``prompt``, ``evaluation_seed``, perhaps
``type`` and ``concept``.

A row belongs to one concept of the policy, or to none. Which one its column ``concept`` says (or ``class``,
where that names a concept of the policy), else its prompt: of the policy's names that stand in it as words of
their own the longest owns it. So a prompt of a hot dog is none of a dog where the policy knows both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from auditor._files.relative_paths import placed
from auditor._files.tables import Row, Table, read_table
from auditor.policy.names import as_read, composed, places_of

_OWNERS = ("concept", "class")
_SEED = re.compile(r"[0-9]{1,19}")
_MOST_CONTEXTS = 40


@dataclass
class PromptFiles:
    """The prompt files of one policy: whom their rows may belong to, and what was read so far."""

    owners: Mapping[str, str]
    """The concept that each of the policy's names and synonyms, as it is read, stands for."""
    tables: dict[Path, Table] = field(default_factory=dict)
    used: dict[Path, dict[int, str]] = field(default_factory=dict)
    """By file: what was made of the rows that were used, by their lines: the words around the name."""
    longest: dict[str, frozenset[str]] = field(default_factory=dict)

    def table(self, path: Path) -> Table:
        """The table in ``path``, read once."""
        if path not in self.tables:
            self.tables[path] = read_table(path, ("prompt", "evaluation_seed"), _OWNERS)
        return self.tables[path]

    def longest_in(self, prompt: str) -> frozenset[str]:
        """The names, as they are read, that stand in ``prompt`` (composed) and not within a longer one."""
        if prompt not in self.longest:
            found = [(start, end, name) for name in self.owners for start, end in places_of(name, prompt)]
            self.longest[prompt] = frozenset(
                name
                for start, end, name in found
                if not any(
                    first <= start and end <= last and last - first > end - start for first, last, _ in found
                )
            )
        return self.longest[prompt]

    def sentences(self) -> Iterator[str]:
        """How many rows of each file are used, which one is left out first, and what the name stands
        between."""
        for path, table in self.tables.items():
            used = self.used.get(path, {})
            yield f"{path}: {len(used)} of {len(table.rows)} rows are prompts of the policy's concepts."
            left = [row for row in table.rows if row.line not in used]
            if left:
                yield (
                    f"{path}: {len(left)} rows are left out, they belong to no concept with this file; the "
                    f"first is line {left[0].line}: {left[0].cells['prompt']!r}."
                )
            around = list(dict.fromkeys(used.values()))
            more = f", and {len(around) - _MOST_CONTEXTS} more" if len(around) > _MOST_CONTEXTS else ""
            yield f"{path}: names are read in {', '.join(map(repr, around[:_MOST_CONTEXTS]))}{more}."


_FILES: ContextVar[PromptFiles | None] = ContextVar("prompt files", default=None)


@contextmanager
def prompt_files_of(concepts: Sequence[tuple[str, Sequence[str]]]) -> Iterator[PromptFiles]:
    """Within it rows belong to these concepts, names with their synonyms; where that was said already, to
    those."""
    if (outer := _FILES.get()) is not None:
        yield outer
        return
    own = {as_read(other): as_read(name) for name, synonyms in concepts for other in (name, *synonyms)}
    before = _FILES.set(PromptFiles(own))
    try:
        found = _FILES.get()
        assert found is not None
        yield found
    finally:
        _FILES.reset(before)


def read_prompts(path: Path, concept: str) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Templates with ``{}`` in the place of ``concept``, and each one's seeds in the file's order.

    Raises ``ValueError`` with the row where it cannot be said whose it is, or it is none that can be drawn.
    """
    with prompt_files_of([(concept, ())]) as files:
        path = placed(path)
        table, used = files.table(path), files.used.setdefault(path, {})
        owner = _owner_column(table, files.owners)
        seeds: dict[str, list[int]] = {}
        for row in table.rows:
            where, prompt = f"{path}:{row.line}", composed(row.cells["prompt"])
            if not _belongs(where, row, owner, concept, files):
                continue
            own, seed = seeds.setdefault(_template(where, prompt, concept), []), _seed(where, row)
            if seed in own:
                raise ValueError(
                    f"{where}: the prompt {prompt!r} has the seed {seed} twice; one image is one piece of "
                    "evidence"
                )
            own.append(seed)
            used[row.line] = _around(prompt, concept)
    if len({len(each) for each in seeds.values()}) > 1:
        counts = ", ".join(f"{template!r}: {len(each)}" for template, each in list(seeds.items())[:4])
        raise ValueError(
            f"{path} has not as many seeds for each prompt of '{concept}' ({counts}); a round is one image "
            "of every prompt"
        )
    if not seeds:
        first = f"; its first prompt is {table.rows[0].cells['prompt']!r}" if table.rows else ""
        raise ValueError(f"{path} has no prompt for '{concept}'{first}")
    return tuple(seeds), tuple(tuple(each) for each in seeds.values())


def _owner_column(table: Table, owners: Mapping[str, str]) -> str | None:
    """The column that says whose a row is: ``concept``, or a ``class`` that names one of the policy's."""
    if "concept" in table.columns:
        return "concept"
    named = "class" in table.columns and any(as_read(row.cells["class"]) in owners for row in table.rows)
    return "class" if named else None


def _belongs(where: str, row: Row, column: str | None, concept: str, files: PromptFiles) -> bool:
    """Is ``row`` a prompt of ``concept``? Raises ``ValueError`` where it names another one too, neither name
    within the other."""
    if column is not None:
        return as_read(row.cells[column]) == as_read(concept)
    longest = files.longest_in(composed(row.cells["prompt"]))
    if as_read(concept) not in longest:
        return False
    if len({files.owners[name] for name in longest}) > 1:
        raise ValueError(
            f"{where}: the prompt {row.cells['prompt']!r} names {' and '.join(sorted(map(repr, longest)))}; "
            "say whose it is in a column 'concept'"
        )
    return True


def _template(where: str, prompt: str, concept: str) -> str:
    found = places_of(concept, prompt)
    if "{" in prompt or "}" in prompt or len(found) != 1:
        raise ValueError(f"{where}: the prompt {prompt!r} must name '{concept}' once and have no brace")
    ((start, end),) = found
    return f"{prompt[:start]}{{}}{prompt[end:]}"


def _around(prompt: str, concept: str) -> str:
    """The name, with what is joined to it, two words before it and one after it."""
    ((start, end),) = places_of(concept, prompt)
    before, after = re.split(r"\s+", prompt[:start]), re.split(r"\s+", prompt[end:])
    name = before.pop() + " ".join(prompt[start:end].split()) + after.pop(0)
    return " ".join([*before[-2:], name, *after[:1]]).strip()


def _seed(where: str, row: Row) -> int:
    text = row.cells["evaluation_seed"].strip()
    if not _SEED.fullmatch(text) or int(text) >= 2**63:
        raise ValueError(
            f"{where}: evaluation_seed is {row.cells['evaluation_seed']!r}; a whole number from 0 is right"
        )
    return int(text)
