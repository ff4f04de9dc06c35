"""Updates other than fine-tunes: what users do to a checkpoint before and after they train it, as probes
for auditor."""

from __future__ import annotations

from auditor.plugin import AnyProbe, hookimpl
from auditor_updates.sequence import Sequence
from auditor_updates.textual_inversion import TextualInversion
from auditor_updates.weights import MergeLora, Quantisation, WeightNoise

__all__ = ["MergeLora", "Quantisation", "Sequence", "TextualInversion", "WeightNoise"]


@hookimpl
def auditor_register_probes() -> list[type[AnyProbe]]:
    """All five."""
    return [Quantisation, WeightNoise, MergeLora, TextualInversion, Sequence]
