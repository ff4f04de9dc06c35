"""What every plugin says of itself."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from auditor.plugin.options import OptionsModel


class Plugin(ABC):
    """What every plugin says of itself."""

    name: ClassVar[str]
    """The name that policies use: lower case, digits and hyphens, unique among plugins of its kind."""
    summary: ClassVar[str]
    """One line on what it is for."""
    source: ClassVar[str] = ""
    """Paper, equation or DOI."""
    needs_gpu: ClassVar[bool] = False
    """Is it of no practical use on a CPU?"""

    Options: ClassVar[type[OptionsModel]] = OptionsModel
    """The model of its options."""
    origin: ClassVar[str] = ""
    """Distribution and version that it came from; the loader fills it in."""
    given: Mapping[str, Any] | None = None
    """Its options as they were written; the loader fills it in."""
    given_in: Path | None = None
    """The folder that their relative paths lead from, None: the working folder; the loader fills it in."""

    def __init__(self, options: OptionsModel) -> None:
        self.options: Any = options

    def parts(self) -> tuple[Plugin, ...]:
        """Other plugins that this one is made of; their versions and weights are part of the run's
        identity too."""
        return ()

    def files(self) -> tuple[Path, ...]:
        """Files and folders whose content decides what it does; part of the identity of what a study
        measures.

        Every path among the options. Overridden by plugins that are told of a file by a string, or of a
        folder to write to.
        """
        return tuple(value for _, value in self.options if isinstance(value, Path))
