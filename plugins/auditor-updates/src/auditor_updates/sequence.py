"""Several updates one after another: what Suriyakumar et al. leave open: do concepts come back bit by bit?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from auditor.plugin import (
    OptionsModel,
    Plugin,
    PluginError,
    ProbeSetting,
    TrainingRequest,
    Update,
    UsageError,
    WeightProbe,
    call,
    iterate,
    make_plugin,
    title,
)

_SHAM_STEPS = 2


class Member(OptionsModel):
    """One update of the sequence."""

    use: str
    """The probe."""
    method: Literal["lora", "full"] = "lora"
    """How it trains; a LoRA is merged before the next update begins."""
    steps: int = Field(default=500, ge=1)
    """Its dose."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Its options."""


class SequenceOptions(OptionsModel):
    """Which updates."""

    updates: tuple[Member, ...] = Field(min_length=1)
    """Taken in turn, from the first again after the last. A dose of the policy is a number of updates."""


class Sequence(WeightProbe):
    """A chain of updates, each on top of the one before; the dose is how many."""

    name = "sequence"
    summary = "several updates one after another; the dose is their number"
    source = "left open by Suriyakumar et al."
    Options: ClassVar[type[OptionsModel]] = SequenceOptions

    @property
    def has_sham(self) -> bool:  # type: ignore[override]
        """Does a member train?"""
        return any(probe.has_sham for _, probe in self._members)

    @property
    def uses_base(self) -> tuple[str, ...]:  # type: ignore[override]
        """What its members use of the base."""
        return tuple(dict.fromkeys(part for _, probe in self._members for part in probe.uses_base))

    @cached_property
    def _members(self) -> tuple[tuple[Member, WeightProbe], ...]:
        found = [
            (member, make_plugin("probes", member.use, member.options)) for member in self.options.updates
        ]
        other = next((member.use for member, probe in found if not isinstance(probe, WeightProbe)), None)
        if other is not None:
            raise UsageError(f"A sequence is of updates of weights, and the probe {other} changes none.")
        return tuple(found)

    def parts(self) -> tuple[Plugin, ...]:
        """Its members."""
        return tuple(probe for _, probe in self._members)

    def changes(self, method: str) -> tuple[str, ...]:
        """The denoiser, LoRAs being merged, and what else a member changes."""
        own = [
            pattern
            for member, probe in self._members
            for pattern in call(probe, probe.changes, member.method)
        ]
        return tuple(
            dict.fromkeys(
                ("denoiser.*", *(pattern for pattern in own if not pattern.startswith("denoiser.")))
            )
        )

    def least_change(self) -> float | None:
        """Where no member trains: the least that one of them declares."""
        found = [probe.least_change() for _, probe in self._members]
        return min((least for least in found if least is not None), default=None)

    def training_calls(self, dose: int) -> int:
        """The members', in turn."""
        turns = (self._members[number % len(self._members)] for number in range(dose))
        return sum(probe.training_calls(member.steps) for member, probe in turns)

    def training_set(self, setting: ProbeSetting) -> list[TrainingRequest] | Path:
        """All members' requests, one after the other; each member trains on its own part."""
        return [request for requests in self._requests(setting) for request in requests]

    def _requests(self, setting: ProbeSetting) -> list[list[TrainingRequest]]:
        found = []
        for number, (_, probe) in enumerate(self._members):
            asked = call(probe, probe.training_set, replace(setting, seed=setting.seed + number))
            if isinstance(asked, Path):
                raise UsageError(
                    f"A member of a sequence cannot train on a folder yet ({probe.name}); give it candidates."
                )
            found.append(asked)
        self._shares = [
            sum(len(request.prompts) * request.images_per_prompt for request in asked) for asked in found
        ]
        return found

    def update(self, update: Update) -> Iterator[int]:
        """Apply member after member; yields where a dose is reached."""
        starts = [sum(self._shares[:number]) for number in range(len(self._shares))]
        done = 0
        for number in range(1, update.doses[-1] + 1):
            turn = (number - 1) % len(self._members)
            member, probe = self._members[turn]
            steps = _SHAM_STEPS if update.sham else member.steps
            part = slice(starts[turn], starts[turn] + self._shares[turn])
            if probe.has_sham or not update.sham:

                def on_step(step: int, before: int = done) -> None:
                    update.on_step(before + step)

                own = replace(
                    update,
                    images=update.images[part],
                    captions=update.captions[part],
                    method=member.method,
                    doses=(steps,),
                    seed=(update.seed + number) & 0x7FFFFFFFFFFFFFFF,
                    on_step=on_step,
                )
                reached = []
                with closing(iterate(probe, probe.update(own), own.seed)) as doses:
                    for dose in doses:
                        reached.append(dose)
                        _merge(update)
                if reached != [steps]:
                    raise PluginError(
                        f"{title(probe)} reached the training steps {reached} in a sequence; [{steps}] is "
                        "right."
                    )
                done += steps
            if number in update.doses:
                yield number


def _merge(update: Update) -> None:
    """Make an adapter part of the weights, so that the next update begins from them."""
    if getattr(update.model.denoiser, "peft_config", None):
        update.model.denoiser.fuse_lora()
        update.model.denoiser.unload_lora()
