"""Tables in text files (CSV), read strictly: by the names of their columns, with the line of each row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_BETWEEN = (",", ";", "\t", "|")
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True)
class Row:
    """One row: the line, from 1, that it begins on, and its cells by column."""

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """Columns (in small letters, without blanks around them) and rows, in the file's order. Rows without any
    text are left out."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_table(path: Path, needed: Sequence[str], known: Sequence[str] = ()) -> Table:
    """The table in ``path``: UTF-8, with commas, semicolons, tabs or bars between cells.

    Raises ``ValueError`` with one sentence where it cannot be read, a ``needed`` column is missing, one that
    is ``needed`` or ``known`` stands twice, or a row has more cells than the header. A row that ends early
    has empty cells.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"cannot read {path}: it is not UTF-8; save it as UTF-8") from error
    headers = {between: _header(path, text, between) for between in _BETWEEN}
    fits = (between for between, columns in headers.items() if set(needed) <= set(columns))
    between = next(fits, None) or max(headers, key=lambda each: len(headers[each]))
    columns = headers[between]
    if missing := [column for column in needed if column not in columns]:
        found = (
            f"{', '.join(map(repr, columns))}, with {_NAMES[between]} between them" if columns else "nothing"
        )
        raise ValueError(
            f"{path} has no column {' and no '.join(map(repr, sorted(missing)))}; its header holds {found}; "
            f"{' and '.join(map(repr, needed))} are needed"
        )
    if twice := [column for column in (*needed, *known) if columns.count(column) > 1]:
        raise ValueError(f"{path} has {columns.count(twice[0])} columns called '{twice[0]}'; leave one")
    rows = list[Row]()
    for line, cells in list(_rows(path, text, between))[1:]:
        if len(cells) > len(columns):
            raise ValueError(
                f"{path}:{line}: a row of {len(cells)} cells under {len(columns)} columns; put quotes around "
                "a cell that holds what stands between cells"
            )
        rows.append(Row(line, dict(zip(columns, [*cells, *[""] * len(columns)], strict=False))))
    return Table(columns, tuple(rows))


def _header(path: Path, text: str, between: str) -> tuple[str, ...]:
    """The columns, were ``between`` what stands between cells."""
    try:
        first = next(_rows(path, text, between), (1, []))[1]
    except ValueError:
        return ()
    return tuple(cell.strip().casefold() for cell in first)


def _rows(path: Path, text: str, between: str) -> Iterator[tuple[int, list[str]]]:
    """The line that each row begins on, and its cells; rows without text are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=between, skipinitialspace=True, strict=True)
    begins = 1
    try:
        for cells in reader:
            if "".join(cells).strip():
                yield begins, cells
            begins = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}:{begins}: this is no row of a table ({error})") from error
