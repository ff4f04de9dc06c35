"""Where people read: sentences and tables, in a terminal and in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from auditor._cli.output import moves_cursor, standard_output
from auditor.report.words import harmless, line


def printable(text: str) -> str:
    """Text of others without control characters, which could drive a terminal."""
    return harmless(line(text, 100_000))


def plain(text: str) -> str:
    """The same where Rich reads markup."""
    return escape(harmless(line(text)))


class Terminal(Console):
    """Where people read. Where it is no terminal, lines are left as long as they are."""

    def __init__(self, *, stderr: bool = False, highlight: bool = True) -> None:
        # rich asks the file that it was given for its encoding, and no other
        super().__init__(
            file=sys.stderr if stderr else standard_output(), stderr=stderr, highlight=highlight, emoji=False
        )

    @property
    def moves_cursor(self) -> bool:
        """May what was printed be drawn over?"""
        return moves_cursor(self.file)

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich prints; a table wraps at words, and is lines where its longest words do not fit. Without a
        terminal it has no box."""
        table = objects[0] if len(objects) == 1 and isinstance(objects[0], Table) else None
        if table is None:
            super().print(*objects, **{"soft_wrap": not self.moves_cursor} | options)
            return
        if not self.moves_cursor:
            table.box, table.padding, table.title_justify = None, (0, 2, 0, 0), "left"
        if _fit(table, self.width):
            super().print(table, **options)
        else:
            for row in _lines(table):
                super().print(row, **options | {"soft_wrap": True})

    def say(self, text: str, style: str | None = None, *, indent: int = 0) -> None:
        """A sentence, maybe of others: in a terminal wrapped at words under its indent, else one line."""
        shown = Text(printable(line(text, 3000)), style=style or "")
        if self.moves_cursor:
            super().print(Padding(shown, (0, 0, 0, indent)))
        else:
            super().print(Text(" " * indent) + shown, soft_wrap=True)


def _fit(table: Table, width: int) -> bool:
    """Give the columns widths so that no word is broken; False where even the longest words do not fit."""
    least, most = list[int](), list[int]()
    for column in table.columns:
        texts = [Text.from_markup(str(cell)) for cell in (column.header, *column.cells)]
        words = (Text(word).cell_len for text in texts for word in text.plain.split())
        least.append(max(words, default=1))
        most.append(max((text.cell_len for text in texts), default=1))
    around = 3 * len(least) + 1 if table.box is not None else 2 * len(least)
    room = width - around - sum(least)
    if room < 0:
        return False
    for column, narrow, wide in zip(table.columns, least, most, strict=True):
        more = min(room, wide - narrow)
        column.width, room = narrow + more, room - more
    return True


def _lines(table: Table) -> Iterator[str]:
    if table.title:
        yield str(table.title)
    for row in zip(*(column.cells for column in table.columns), strict=True):
        named = zip((str(column.header) for column in table.columns), row, strict=True)
        yield "; ".join(f"{header}: {cell}" if header else str(cell) for header, cell in named if cell)
