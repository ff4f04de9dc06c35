"""The append-only record of a run: one line, one sync, for each batch drawn and scored, arm made, or
failure."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

from pydantic import Field, TypeAdapter, ValidationError

from auditor._files.places import lock, sync
from auditor._journal.lines import Line
from auditor._journal.seal import SEAL_AT_END, Seal
from auditor.errors import AuditorError, UsageError

_LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="kind")])


def read_journal(path: Path, seal: Seal | None = None) -> list[Line]:
    """The lines of a journal. A torn last line is dropped; a line torn elsewhere raises
    :class:`AuditorError`.

    With ``seal`` every line must carry it, else :class:`UsageError`.
    """
    if not path.exists():
        return []
    # what follows the last newline was torn while it was written
    whole_lines = path.read_bytes().split(b"\n")[:-1]
    if seal is not None:
        seal.last(path, whole_lines)
    lines: list[Line] = []
    for number, text in enumerate(whole_lines, 1):
        try:
            lines.append(_LINE.validate_json(SEAL_AT_END.sub(b"}", text)))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])[:100]
            raise AuditorError(
                f"{path}:{number}: this line of the journal is damaged ({where}: {first['msg']}); audit "
                "again in a new folder."
            ) from error
    return lines


class Journal:
    """Appends lines to a journal, each on the disk before the call returns. One process at a time."""

    def __init__(self, path: Path, seal: Seal | None = None) -> None:
        self.path = path
        self._file = path.open("a+b", buffering=0)
        self.locked = lock(self._file)
        """True, or None where the file system has no locks."""
        if self.locked is False:
            self._file.close()
            raise UsageError(
                f"Another audit is writing to {path.parent}; wait for it, or give another folder with --out."
            )
        self._file.seek(0)
        content = self._file.read()
        self._file.truncate(content.rfind(b"\n") + 1)
        lines = content.split(b"\n")[:-1]
        self._seal = seal
        try:
            self._last = b"" if seal is None else seal.last(path, lines)
            if seal is None and lines and SEAL_AT_END.search(lines[0]):
                raise UsageError(
                    f"{path.parent} is sealed with a key; give it (--seal), or audit in a new folder."
                )
        except UsageError:
            self._file.close()
            raise

    def write(self, line: Line) -> None:
        """Append one line and wait until it is on the disk. What a full disk tears off is dropped when the
        journal is next read."""
        text = line.model_dump_json().encode()
        last = b"" if self._seal is None else self._seal.of(self._last, text)
        rest = (text if self._seal is None else text[:-1] + b',"seal":"' + last + b'"}') + b"\n"
        while rest:
            rest = rest[self._file.write(rest) :]
        sync(self._file.fileno())
        self._last = last

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
