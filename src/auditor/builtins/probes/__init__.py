"""The probes that come with auditor: benign fine-tunes, parts of the base put back, other samplers, and
other words."""

from __future__ import annotations

from auditor.builtins.probes.as_it_is import Prompts, Sampling
from auditor.builtins.probes.base_lora import BaseLora
from auditor.builtins.probes.finetune import ClipTercile, InDomain, OutOfDomain
from auditor.builtins.probes.put_back import BaseAutoencoder, BaseTextEncoder
from auditor.plugin import hookimpl
from auditor.plugin.contracts import AnyProbe


@hookimpl
def auditor_register_probes() -> list[type[AnyProbe]]:
    """The built-in probes."""
    return [InDomain, OutOfDomain, ClipTercile, BaseLora, BaseTextEncoder, BaseAutoencoder, Sampling, Prompts]
