"""A gate's secret key over a journal: who wrote a line, and whether any is missing."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from auditor.errors import UsageError

_SHORTEST_KEY = 16

SEAL_AT_END = re.compile(rb',"seal":"([0-9a-f]{64})"}$')


@dataclass(frozen=True)
class Seal:
    """A secret key, and the run (the digest of its identity) whose lines it signs: those of another run
    are not its own."""

    key: bytes
    run: str

    def of(self, before: bytes, text: bytes) -> bytes:
        """HMAC-SHA256 (RFC 2104) of a line and of the seal before it: a line that is changed, doubled or
        moved breaks the chain, and one that is dropped, unless it is the last."""
        return hmac.new(self.key, before + b"\n" + text, "sha256").hexdigest().encode()

    def last(self, path: Path, lines: Sequence[bytes]) -> bytes:
        """The seal of the last line. Raises :class:`UsageError` at the first that does not follow from
        key, run and the lines before."""
        seal = self.run.encode()
        for number, text in enumerate(lines, 1):
            found = SEAL_AT_END.search(text)
            seal = self.of(seal, SEAL_AT_END.sub(b"}", text))
            if found is None or not hmac.compare_digest(found[1], seal):
                raise UsageError(
                    f"{path}:{number} does not carry the seal of this key for this run: somebody else wrote "
                    "it, or it is another audit's; audit in a new folder."
                )
        return seal


def read_key(path: Path) -> bytes:
    """The key that a journal is sealed with. Raises :class:`UsageError` where the file is none, or too
    short to be a secret."""
    try:
        content = path.read_bytes().strip()
    except OSError as error:
        raise UsageError(f"The key {path} cannot be read: {error.strerror}.") from error
    if len(content) < _SHORTEST_KEY:
        raise UsageError(
            f"The key {path} has {len(content)} bytes; make one with 'openssl rand -hex 32 > {path.name}'."
        )
    return content
