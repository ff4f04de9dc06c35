"""Streams and events of a pretended GPU: all that was launched is done at once, and time is the CPU's."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any


class Stream:
    """A stream on which nothing is ever left to do."""

    waits: Callable[[str], None] = staticmethod(lambda kind: None)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Whatever is asked of it."""

    def synchronize(self) -> None:
        """Wait for what was launched."""
        self.waits("synchronize")

    def wait_stream(self, other: Any) -> None:
        """Nothing to wait for."""

    def wait_event(self, event: Any) -> None:
        """Nothing to wait for."""

    def record_event(self, event: Any = None) -> Any:
        """An event, recorded."""
        event = event or Event()
        event.record()
        return event

    def query(self) -> bool:
        """Is all done?"""
        return True


class Event:
    """A moment on the CPU's clock."""

    waits: Callable[[str], None] = staticmethod(lambda kind: None)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.at = 0.0

    def record(self, stream: Any = None) -> None:
        """Now."""
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        """Wait for it."""
        self.waits("synchronize")

    def wait(self, stream: Any = None) -> None:
        """Nothing to wait for."""

    def query(self) -> bool:
        """Is it past?"""
        return True

    def elapsed_time(self, other: Event) -> float:
        """Milliseconds to another."""
        return 1000 * (other.at - self.at)


def answers(wait: Callable[[str], None]) -> dict[str, Any]:
    """The names of ``torch.cuda`` that have to do with streams and events."""
    told = {"waits": staticmethod(wait)}
    stream_type, event_type = type("Stream", (Stream,), told), type("Event", (Event,), told)
    stream = stream_type()

    @contextlib.contextmanager
    def on(given: Any) -> Iterator[None]:
        yield

    return {
        "Stream": stream_type,
        "Event": event_type,
        "stream": on,
        "current_stream": lambda which=None: stream,
        "default_stream": lambda which=None: stream,
    }
