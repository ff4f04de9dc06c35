"""The erasers that come with auditor: they make reference erased models."""

from __future__ import annotations

from auditor.builtins.erasers.esd import Esd
from auditor.builtins.erasers.mace import Mace
from auditor.builtins.erasers.uce import Uce
from auditor.plugin import hookimpl
from auditor.plugin.contracts import Eraser


@hookimpl
def auditor_register_erasers() -> list[type[Eraser]]:
    """The built-in erasers."""
    return [Esd, Mace, Uce]
