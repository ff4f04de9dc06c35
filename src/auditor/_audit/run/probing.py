"""One training run of a probe: a copy of the erased model is changed, looked at and measured at every
dose."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from auditor._audit.cells import HELD_OUT_TIMES, MOST_TRAINED, TRAINED_TIMES
from auditor._audit.run.training_set import TrainingSet, check_base, told_apart
from auditor._diffusion.finetune import Examples, denoising_losses
from auditor._diffusion.model import DiffusionModel, configuration_of, digest_of_weights
from auditor._diffusion.original import Change, Original
from auditor._diffusion.reproducible import reproducible
from auditor._diffusion.room import room_for_training
from auditor._files.digest import seed_of
from auditor.errors import PluginError
from auditor.plugin import _door as door
from auditor.plugin.contracts import Update, WeightProbe
from auditor.policy import ProbeUse

Losses = Callable[[DiffusionModel], tuple[float, ...]]


@dataclass(frozen=True)
class Reached:
    """A dose that was reached. ``model`` is trained on as soon as the next one is asked for."""

    dose: int
    model: DiffusionModel
    change: Change
    fit_before: tuple[float, ...]
    fit: tuple[float, ...]
    """Held-out denoising losses, one an example; none at all where one is not a number, or nothing is held
    out."""
    fit_trained_before: tuple[float, ...]
    fit_trained: tuple[float, ...]
    """Denoising losses of the training pictures with noise that training never used, likewise."""
    seconds: float
    """Since the dose before it was handed out and used."""
    rows_at_once: int | None = None
    """Images of a training step that went through the denoiser at once, where memory did not hold all."""


def check_training(probe: WeightProbe, training: TrainingSet) -> None:
    """Raise :class:`PluginError` where a probe trains and has no no-op control, or the other way round."""
    if bool(training.captions) != door.call(probe, getattr, probe, "has_sham"):
        wrong = (
            "trains and has no no-op control"
            if training.captions
            else "has a no-op control and trains on nothing"
        )
        raise PluginError(
            f"{door.title(probe)} {wrong}; has_sham is right for probes that train on a training set, and "
            "for those alone."
        )


def allowed_changes(probe: WeightProbe, use: ProbeUse) -> tuple[str, ...]:
    """The patterns of tensors that a probe says it changes."""
    allowed = door.call(probe, probe.changes, use.method)
    if not isinstance(allowed, tuple) or not all(isinstance(pattern, str) for pattern in allowed):
        raise PluginError(
            f"{door.title(probe)} returned {allowed!r} from changes(); a tuple of patterns is right."
        )
    return allowed


class Looking:
    """Looks at what becomes of a copy of the erased model in one training run. ``base`` is needed for probes
    that put a part of it back, or use one."""

    def __init__(
        self,
        probe: WeightProbe,
        use: ProbeUse,
        original: Original,
        erased: DiffusionModel,
        training: TrainingSet,
        seed: int,
        base: DiffusionModel | None = None,
    ) -> None:
        self.probe, self.use, self.original, self.erased, self.base = probe, use, original, erased, base
        self.training, self.seed = training, seed
        self._allowed = allowed_changes(probe, use)
        self._losses = held_out_losses(erased, training, seed), trained_losses(erased, training, seed)
        self._before = [losses(erased) for losses in self._losses]

    def reached(
        self, dose: int, model: DiffusionModel, seconds: float, rows_at_once: int | None = None
    ) -> Reached:
        """What is known of ``model``, which took ``seconds`` to make. Raises :class:`PluginError` where it
        differs in more than the probe says."""
        change = self.original.change(
            model, self._allowed, door.title(self.probe), may_be_nothing=bool(self.probe.puts_back)
        )
        (held_out_before, trained_before), (held_out, trained) = (
            self._before,
            [losses(model) for losses in self._losses],
        )
        _check_put_back(self.probe, model, self.base)
        return Reached(
            dose,
            model,
            change,
            held_out_before,
            held_out,
            trained_before,
            trained,
            seconds,
            rows_at_once,
        )


def train(looking: Looking, on_step: Callable[[int], None]) -> Generator[Reached, None, None]:
    """Train once, and yield every dose on the way. Raises :class:`PluginError` where the probe does other
    than its contract says."""
    probe, use, seed, base = looking.probe, looking.use, looking.seed, looking.base
    model, who, fewer = looking.original.fresh(), door.title(probe), list[int]()
    update = Update(
        model,
        looking.training.images.clone(),
        looking.training.captions,
        use.method,
        use.doses,
        seed,
        on_step=on_step,
        on_fewer=fewer.append,
        **of_the_base(probe, base),
    )
    others = [looking.erased] if base is None else [looking.erased, base]
    began, reached = time.monotonic(), list[int]()
    with reproducible(model.device):
        updating = door.call(probe, probe.update, update)
    with closing(door.iterate(probe, updating, seed)) as steps:
        for dose in doses_of(steps, model, use.method, others):
            reached.append(dose)
            if reached != list(use.doses[: len(reached)]):
                break
            yield looking.reached(dose, model, time.monotonic() - began, fewer[-1] if fewer else None)
            began = time.monotonic()
    if reached != list(use.doses):
        raise PluginError(
            f"{who} reached the training steps {reached}; the policy's doses are {list(use.doses)}."
        )


class OfTheBase(TypedDict):
    """What an :class:`Update` holds of the base."""

    base: Mapping[str, nn.Module]
    base_schedule: Mapping[str, Any]


def of_the_base(probe: WeightProbe, base: DiffusionModel | None) -> OfTheBase:
    """Copies of what a probe puts back or uses of the base, and the base's noise schedule. Raises
    :class:`UsageError` where it uses a base and there is none, and :class:`PluginError` where the base has
    no such part."""
    check_base(probe, has_base=base is not None)
    if base is None or not (probe.uses_base or probe.puts_back):
        return OfTheBase(base={}, base_schedule={})
    family = base.family
    called = {"denoiser": (family.denoiser,), "text": family.text, "decoder": (family.decoder,)}
    names = dict.fromkeys(name for part in probe.uses_base for name in called.get(part, (part,)))
    unknown = next((name for name in names if name not in base.modules), None)
    if unknown is not None:
        raise PluginError(
            f"{door.title(probe)} uses the base's part '{unknown}'; a base has {', '.join(base.modules)}."
        )
    names |= dict.fromkeys(name for name in probe.puts_back if name in base.modules)
    return OfTheBase(
        base={name: copy.deepcopy(base.modules[name]) for name in names},
        base_schedule=dict(base.scheduler_config),
    )


def doses_of(
    steps: Iterator[int], model: DiffusionModel, method: str, others: Sequence[DiffusionModel]
) -> Iterator[int]:
    """The doses that ``steps`` reach, which train ``model``.

    While they do, and not in between, a GPU computes what can be repeated, and the ``others`` wait on the CPU
    where it has no room for them.
    """
    while True:
        with reproducible(model.device), room_for_training(model, method, others):
            try:
                dose = next(steps)
            except StopIteration:
                return
        yield dose


def _check_put_back(probe: WeightProbe, model: DiffusionModel, base: DiffusionModel | None) -> None:
    """Raise :class:`PluginError` where a part that a probe says it puts back is not the base's afterwards."""
    for part in probe.puts_back:
        own, theirs = model.modules.get(part), None if base is None else base.modules.get(part)
        if own is None or theirs is None or digest_of_weights(own) != digest_of_weights(theirs):
            raise PluginError(
                f"{door.title(probe)} says that it puts the base's {part} back, and it is not the base's "
                "afterwards."
            )
        if configuration_of(own) != configuration_of(theirs):
            raise PluginError(
                f"The {part} is of another configuration than the base's, which cannot be put in its place."
            )


def held_out_losses(erased: DiffusionModel, training: TrainingSet, seed: int) -> Losses:
    """Measures held-out pictures that differ from what is trained on."""
    return _losses(erased, training, told_apart(training), seed, HELD_OUT_TIMES)


def trained_losses(erased: DiffusionModel, training: TrainingSet, seed: int) -> Losses:
    """Measures the pictures that are trained on, each picture once and at most 40 of them spread over the
    set, with noise and timesteps of a seed that no training step has."""
    none = training.images[:0]
    pictures = TrainingSet(none, (), training.images, training.captions)
    chosen = told_apart(pictures).nonzero().flatten()
    if len(chosen) > MOST_TRAINED:
        chosen = chosen[torch.linspace(0, len(chosen) - 1, MOST_TRAINED).round().long()]
    kept = torch.zeros(len(training.images), dtype=torch.bool)
    kept[chosen] = True
    return _losses(erased, pictures, kept, seed_of(seed, "took effect"), TRAINED_TIMES)


def _losses(
    erased: DiffusionModel, pictures: TrainingSet, kept: Tensor, seed: int, timesteps_each: int
) -> Losses:
    """A function that measures the denoising losses of a model as it is on the held-out pictures that are
    ``kept`` (bool, (N,)), always on the same noise; () where there is none, or a loss is not a number."""
    captions = tuple(
        each for each, keep in zip(pictures.held_out_captions, kept.tolist(), strict=True) if keep
    )
    if not captions:
        return lambda model: ()
    examples = Examples.of(erased, pictures.held_out_images[kept], captions)

    def losses(model: DiffusionModel) -> tuple[float, ...]:
        own = replace(examples, condition=model.condition(captions))
        values = denoising_losses(model, own, seed, timesteps_each)
        return tuple(values.tolist()) if bool(values.isfinite().all()) else ()

    return losses
