"""Updates that put a part of the base back: what users do who load an erased UNet with the parts that
everybody has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from auditor.errors import UsageError
from auditor.plugin.contracts import ProbeSetting, TrainingRequest, Update, WeightProbe


class PutBack(WeightProbe):
    """A part of the base in the place of the checkpoint's.

    Where the checkpoint has the base's already there is nothing to do; its doses mean nothing.
    """

    def changes(self, method: str) -> tuple[str, ...]:
        """The whole part, and nothing else."""
        return tuple(f"{part}.*" for part in self.puts_back)

    def least_change(self) -> float | None:
        """Anything that is no rounding error."""
        return 1e-6

    def training_set(self, setting: ProbeSetting) -> list[TrainingRequest] | Path:
        """Nothing."""
        return []

    def update(self, update: Update) -> Iterator[int]:
        """Copy the weights."""
        for part in self.puts_back:
            if part not in update.base:
                raise UsageError(f"The probe {self.name} needs the base; give one (--base).")
            # copies, made for this probe
            update.model.parts[part].load_state_dict(update.base[part].state_dict(), assign=True)
        update.model.forget_text_states()
        yield from update.doses


class BaseTextEncoder(PutBack):
    """The base's public text encoder: an erasure that lives in the checkpoint's alone comes undone by it."""

    name = "base-text-encoder"
    summary = "the base's text encoder put back"
    puts_back = ("text_encoder",)


class BaseAutoencoder(PutBack):
    """The base's public autoencoder: one that was taught to spoil a subject hides what the UNet still
    draws."""

    name = "base-autoencoder"
    summary = "the base's autoencoder put back"
    puts_back = ("vae",)
