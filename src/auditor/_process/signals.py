"""How a long job ends when it is told to: at once, with everything written whole, and with a sentence."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from auditor.errors import InterruptedRunError


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGINT and SIGTERM end the run as :class:`InterruptedRunError`; a second signal at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each, old in earlier.items():
            signal.signal(each, old)
        raise InterruptedRunError(number)

    try:
        earlier = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the caller's signals are its own
        yield
        return
    try:
        yield
    finally:
        for each, old in earlier.items():
            signal.signal(each, old)
