"""The reporters that come with auditor."""

from __future__ import annotations

from auditor.plugin import hookimpl
from auditor.plugin.contracts import Reporter
from auditor.reporters.html import Html
from auditor.reporters.json import Json


@hookimpl
def auditor_register_reporters() -> list[type[Reporter]]:
    """The built-in reporters."""
    return [Json, Html]
