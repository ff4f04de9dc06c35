"""The one writer of what the command line prints.

Who reads it, in what encoding and how wide decides neither the exit code nor which files are written. A
process that came through :func:`settle` prints to a copy of descriptor 1; descriptor 1 itself leads to
standard error from then on, and once a command runs ``sys.stdout`` does too, so that what libraries, plugins
and child processes print is not mixed with ours.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import select
import sys
from typing import Any, TextIO

_NOBODY_READS = (errno.EPIPE, errno.ESHUTDOWN, errno.ECONNRESET)
_WIDEST = 10_000
_ERRORS = 2  # descriptor of standard error
_own: _Stream | None = None


class _Descriptor(io.FileIO):
    """A descriptor to write to. What cannot be written is dropped; the first reason that is not a reader who
    went away is kept."""

    problem: OSError | None = None
    _gone = False

    def write(self, data: Any) -> int:
        """All of ``data`` is taken, whatever becomes of it."""
        whole = memoryview(data).cast("B")
        rest = whole
        while rest and not self._gone:
            try:
                written = super().write(rest)
                if written is None:  # it does not block, and is full
                    select.select([], [self.fileno()], [])
                rest = rest[written or 0 :]
            except OSError as error:
                self._gone = True
                if error.errno not in _NOBODY_READS:
                    self.problem = error
        return len(whole)


class _Stream(io.TextIOWrapper):
    """Text for a descriptor; a character that its encoding does not have is replaced."""

    def __init__(self, descriptor: int, encoding: str, errors: str) -> None:
        self.descriptor = _Descriptor(descriptor, "w", closefd=False)
        at_once = descriptor == _ERRORS or self.descriptor.isatty()
        super().__init__(io.BufferedWriter(self.descriptor), encoding, errors, line_buffering=at_once)


def settle() -> None:
    """Make this process's streams ones that cannot fail. Does nothing where they are not the process's own
    (in a test, in a notebook)."""
    global _own
    if _own is not None or sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__:
        return
    _forget_sizes_that_are_none()
    for descriptor in range(_ERRORS + 1):
        try:
            os.fstat(descriptor)
        except OSError:  # missing: a file that is opened later must not take its place
            os.set_inheritable(
                os.open(os.devnull, os.O_RDWR), True
            )  # the lowest number that is free: this one
    encodings = list[str]()
    for stream in (sys.__stdout__, sys.__stderr__):  # None where it was missing at the start
        encodings.append(stream.encoding if stream is not None else "utf-8")
        with contextlib.suppress(OSError):
            if stream is not None:
                stream.flush()
    if sys.__stdin__ is None:
        sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), "utf-8")
    _own = sys.stdout = _Stream(os.dup(1), encodings[0], "replace")
    sys.stderr = _Stream(_ERRORS, encodings[1], "backslashreplace")
    os.dup2(_ERRORS, 1)


def standard_output() -> TextIO:
    """Where what is asked for is printed."""
    return _own or sys.stdout


def echo(text: object = "", *, err: bool = False) -> None:
    """Print one line of text."""
    print(text, file=sys.stderr if err else standard_output())


def leave() -> OSError | None:
    """Print what is left; whatever is printed from here on goes to standard error. Returns why standard
    output could not be written, unless nobody reads it."""
    if _own is None:
        return None
    _own.flush()
    keep_others_out()
    sys.stderr.flush()
    return _own.descriptor.problem


def keep_others_out() -> None:
    """From here on standard output is for what is printed through this module: what plugins and libraries
    print goes to standard error."""
    if _own is not None and sys.stdout is _own:
        _own.flush()
        sys.stdout = sys.stderr


def print_document(content: str | bytes) -> None:
    """Write a document to standard output, and nothing else: bytes as they are; of JSON what the encoding
    does not have, and what a terminal or a CI would act on, escaped."""
    stream: Any = standard_output()
    if isinstance(content, bytes):
        stream.flush()
        stream.buffer.write(content)
        stream.buffer.flush()
        return
    content = "".join(
        letter if letter.isprintable() or letter == "\n" else json.dumps(letter)[1:-1] for letter in content
    ).replace("##", "#\\u0023")  # Azure reads commands in the middle of a line
    try:
        content.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        content = "".join(letter if letter.isascii() else json.dumps(letter)[1:-1] for letter in content)
    stream.write(content + "\n")
    stream.flush()


def moves_cursor(stream: Any) -> bool:
    """May lines on ``stream`` be drawn over? In a terminal, and not in a log that somebody reads later:
    colours can be forced into one (``FORCE_COLOR``), movements make no sense in it."""
    in_ci = os.environ.get("CI", "").strip().lower() not in ("", "0", "false", "no")
    dumb = os.environ.get("TERM", "").strip().lower() in ("dumb", "unknown")
    try:
        return bool(stream.isatty()) and not in_ci and not dumb
    except (AttributeError, ValueError):
        return False


def _forget_sizes_that_are_none() -> None:
    """``COLUMNS=0`` says that the width is not known; whoever reads it would print nothing."""
    for name in ("COLUMNS", "LINES"):
        text = os.environ.get(name, "")
        known = text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) <= _WIDEST
        if not known:
            os.environ.pop(name, None)
