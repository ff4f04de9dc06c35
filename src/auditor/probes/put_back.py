"""Updates that put a part of the base back: what users do who load an erased UNet with the text encoder that everybody has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from auditor.errors import UsageError
from auditor.plugin.contracts import Probe, ProbeSetting, TrainingRequest, Update


class BaseTextEncoder(Probe):
    """The base's public text encoder in the place of the checkpoint's.

    An erasure that lives in the text encoder alone comes undone by it. Where the checkpoint has the base's already there is nothing to
    do; its doses mean nothing.
    """

    name = "base-text-encoder"
    summary = "the base's text encoder put back"
    puts_back = ("text_encoder",)

    def changes(self, method: str) -> tuple[str, ...]:
        """The whole text encoder, and nothing else."""
        return ("text_encoder.*",)

    def least_change(self) -> float | None:
        """Anything that is no rounding error."""
        return 1e-6

    def training_set(self, setting: ProbeSetting) -> list[TrainingRequest] | Path:
        """Nothing."""
        return []

    def update(self, update: Update) -> Iterator[int]:
        """Copy the weights."""
        if "text_encoder" not in update.base:
            raise UsageError("The probe base-text-encoder needs the base; give one (--base).")
        update.model.text_encoder.load_state_dict(update.base["text_encoder"].state_dict(), assign=True)  # copies, made for this probe
        update.model.forget_text_states()
        yield from update.doses
