"""The probes that come with auditor: the paper's benign fine-tunes, and parts of the base put back."""

from __future__ import annotations

from auditor.builtins.probes.finetune import ClipTercile, InDomain, OutOfDomain
from auditor.builtins.probes.put_back import BaseAutoencoder, BaseTextEncoder
from auditor.plugin import hookimpl
from auditor.plugin.contracts import Probe


@hookimpl
def auditor_register_probes() -> list[type[Probe]]:
    """The built-in probes."""
    return [InDomain, OutOfDomain, ClipTercile, BaseTextEncoder, BaseAutoencoder]
