"""Tells observers what happens. They cannot change anything, and one that raises is named and not called
again."""

from __future__ import annotations

from collections.abc import Iterator

from auditor.errors import AuditorError
from auditor.plugin import _door as door
from auditor.plugin._loader import load_plugins


class Observers:
    """Every observer on this machine."""

    def __init__(self) -> None:
        self._observers = list(load_plugins().observers)

    @property
    def origins(self) -> list[str]:
        """Distribution and version of each."""
        return [observer.origin for observer in self._observers]

    def tell(self, hook: str, record: object) -> Iterator[str]:
        """Call ``hook`` of each observer in turn; yields a sentence for each that raised."""
        for observer in list(self._observers):
            for implementation in getattr(observer.hook, hook).get_hookimpls():
                try:
                    with door.opened(f"The observer {hook} ({observer.origin})"):
                        implementation.function(*(record for _ in implementation.argnames))
                except AuditorError as error:
                    self._observers.remove(observer)
                    yield str(error)
                    break
