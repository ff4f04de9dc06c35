"""Ends the process where a plugin neither answers nor gives a sign of life: nothing inside a process can stop
a call that hangs.

One thread looks at one deadline. When it passes, those who asked to be told are told (the run writes to its
journal), the sentence goes to standard error and the process ends with 5. What hangs while it holds Python's
global lock cannot be seen from here.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from auditor.errors import ExitCode

_LAST_WORDS = 5.0  # seconds


class Watchdog:
    """A deadline that is moved at every sign of life."""

    def __init__(self) -> None:
        self.patience: float | None = 3600.0
        """Seconds that a plugin may be silent; None: for ever."""
        self.last_words: Callable[[str], None] = lambda sentence: None
        """Told the sentence before the process ends."""
        self._condition = threading.Condition(threading.RLock())
        self._deadline: float | None = None
        self._sentence = ""
        self._thread: threading.Thread | None = None

    @contextmanager
    def waiting(self, patience: float | None, last_words: Callable[[str], None]) -> Iterator[None]:
        """While open, plugins may be silent for ``patience`` seconds, and ``last_words`` is told of one
        that was longer."""
        outer = self.patience, self.last_words
        self.patience, self.last_words = patience, last_words
        try:
            yield
        finally:
            self.patience, self.last_words = outer

    @contextmanager
    def watch(self, who: str) -> Iterator[None]:
        """While open, ``who`` must be done or :meth:`alive` before its patience ends."""
        if self.patience is None:
            yield
            return
        with self._condition:
            outer = self._deadline, self._sentence
            self._sentence = f"{who} gave no sign of life for {_spoken(self.patience)}"
        self.alive(start=True)
        try:
            yield
        finally:
            with self._condition:
                self._deadline, self._sentence = outer
                self.alive()  # whoever called it has got an answer

    def alive(self, *, start: bool = False) -> None:
        """A sign of life: the time begins anew."""
        with self._condition:
            if self.patience is None or not (start or self._deadline):
                return
            self._deadline = time.monotonic() + self.patience
            if self._thread is None or not self._thread.is_alive():  # a forked child has no thread yet
                self._thread = threading.Thread(target=self._look, name="auditor-watchdog", daemon=True)
                self._thread.start()
            self._condition.notify()

    def _look(self) -> None:
        while True:
            with self._condition:
                left = None if self._deadline is None else self._deadline - time.monotonic()
                if left is not None and left <= 0:
                    self._end()
                self._condition.wait(1.0 if left is None else left)

    def _end(self) -> None:
        """Called with the lock held: whoever was silent cannot come back in between."""
        sentence = f"auditor: {self._sentence}; what was measured is kept, and the same command goes on.\n"
        steps = (lambda: self.last_words(self._sentence), lambda: os.write(2, sentence.encode()))
        for step in steps:  # each may hang or fail itself: a full disk, a standard error that nobody reads
            helper = threading.Thread(target=step, daemon=True)
            helper.start()
            helper.join(_LAST_WORDS)
        os._exit(ExitCode.ERROR)


def _spoken(seconds: float) -> str:
    return f"{seconds:g} seconds" if seconds < 100 else f"{seconds / 60:g} minutes"


WATCHDOG = Watchdog()
"""The process's own."""
