"""How quick this machine is at what an audit does: kept from the last audit, or measured on the spot."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from auditor._files.whole_files import write_whole

if TYPE_CHECKING:
    from torch import Tensor

    from auditor._audit.plan import Plan
    from auditor._audit.run.runner import Runner
    from auditor._checkpoint import Checkpoint
    from auditor._diffusion.model import DiffusionModel
    from auditor.policy import Policy

_LARGEST = 2 * 10**7  # parameters of a checkpoint that is measured on the spot, in about two seconds
_IMAGES, _STEPS = 64, 3
_BACKWARD = 3
_TRAINED, _MEMBERS = 4, 3  # images a step; runs of one pass
_AROUND = 1.1  # of a whole run, what is neither drawing, scoring nor training, where nothing is known of it


@dataclass(frozen=True)
class Speed:
    """What one kind of device did, and how that is known."""

    device: str
    call: int
    """Operations of one call of the denoiser on one latent: a larger one is computed at another speed."""
    flops: float
    """Operations a second while images are drawn."""
    training_flops: float
    """And while probes train, which is in smaller batches."""
    image: float
    """Seconds an image beside its drawing: detectors, files, journal."""
    start: float
    """Seconds before the first image: admission, loading."""
    around: float
    """How much longer a run takes than what is accounted for here."""
    known: str = "at the speed of the last audit of such a model on this machine"

    def seconds(self, operations: float, images: float, training: float) -> float:
        """Of a run that draws ``images`` in ``operations``, and trains in ``training`` operations."""
        work = operations / self.flops + images * self.image + training / self.training_flops
        return self.start + self.around * work


def keep_speed(cache: Path | None, speed: Speed) -> None:
    """Remember it for the next plan's minutes."""
    if cache is not None:
        write_whole(_place(cache, speed.device, speed.call), json.dumps(asdict(speed)).encode())


def kept_speed(cache: Path | None, device: str, call: int) -> Speed | None:
    """Of the last audit on this kind of ``device`` of a model whose denoiser takes as many operations a
    ``call``; None before the first."""
    if cache is None:
        return None
    try:
        found = json.loads(_place(cache, device, call).read_text(encoding="utf-8"))
        numbers = {
            name: float(found[name]) for name in ("flops", "training_flops", "image", "start", "around")
        }
        speed = Speed(device, call, **numbers, known=str(found["known"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return speed if min(speed.flops, speed.training_flops) > 0 else None


def _place(cache: Path, device: str, call: int) -> Path:
    return cache / "rates" / f"{re.sub(r'[^A-Za-z0-9]+', '-', device)}-{call}.json"


def can_be_measured(opened: Checkpoint) -> bool:
    """Is a checkpoint small enough to be loaded for a forecast?"""
    return opened.parameters <= _LARGEST


def measured_speed(plan: Plan, opened: Checkpoint, once: int) -> Speed:
    """Load the checkpoint, draw and score a batch and train a few steps: about two seconds for the micro
    world. ``once``: operations of one call of the denoiser. Raises the errors of
    :func:`~auditor._checkpoint.load.load_model`."""
    from auditor._checkpoint.load import load_model
    from auditor._diffusion.sampling import batch_size, draw
    from auditor._process.device import device_kind

    began, policy = time.monotonic(), plan.policy
    model = load_model(opened, policy.sampler.dtype)
    loading = time.monotonic() - began
    sampler = policy.sampler.model_copy(update={"steps": _STEPS})
    count = min(_IMAGES, batch_size(model, sampler))
    prompts = [plan.gate_cells[0].prompts[0]] * count
    images, _ = draw(model, prompts, range(count), sampler)
    drawing = min(_seconds(lambda: draw(model, prompts, range(count), sampler)) for _ in range(2))
    return Speed(
        device_kind(),
        once,
        flops=sampler.calls * count * once / drawing,
        training_flops=once * _calls_a_second(plan, model, images[:_TRAINED], prompts[:_TRAINED]),
        image=_scoring(policy, images) / count,
        start=2 * loading + 1,
        around=_AROUND,
        known="as it was measured once on this machine",
    )


def _seconds(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def _scoring(policy: Policy, images: Tensor) -> float:
    """Seconds that the policy's detectors take for ``images``, once they are warm."""
    from auditor._audit.run.observing import ask
    from auditor.plugin.instruments import make_instruments

    concepts, found = (*policy.erase, *policy.retain), 0.0
    for detector in make_instruments(policy).detectors:
        ask(detector, images, concepts)
        found += _seconds(lambda each=detector: ask(each, images, concepts))  # type: ignore[misc]
    return found


def _calls_a_second(plan: Plan, model: DiffusionModel, images: Tensor, captions: Sequence[str]) -> float:
    """Calls of the denoiser that training is worth, a second, in the plan's mixture of LoRAs in company and
    of full fine-tuning."""
    from auditor._audit.cost import training_calls_by_arm
    from auditor._diffusion.finetune import Examples, Training, finetune
    from auditor._diffusion.original import Original
    from auditor._diffusion.side_by_side import is_small, lanes, side_by_side
    from auditor._diffusion.together import Member, Together

    examples = Examples.of(model, images, captions)
    original, training, doses = Original(model), Training("lora", 0.0, _TRAINED), (_STEPS,)
    many, member = lanes() if is_small(model) else 1, Member(examples, training, doses, 0)
    passes = [Together(original.copy([model.family.denoiser]), [member] * _MEMBERS) for _ in range(many)]
    rows = _BACKWARD * _STEPS * _TRAINED
    company = rows * _MEMBERS * many / _seconds(lambda: side_by_side([each.train for each in passes]))
    alone = rows / _seconds(lambda: list(finetune(model, examples, training, doses, 0)))
    calls = training_calls_by_arm(plan)
    probes = {arm.name: plan.uses[arm.probe] for arm in plan.arms if arm.probe is not None}
    spent = sum(
        calls[name] / (company if use.method == "lora" else alone)
        for name, use in probes.items()
        if calls.get(name)
    )
    return sum(calls.values()) / spent if spent else alone


def speed_of(runner: Runner, once: int, calls: Mapping[str, int], start: float, whole: float) -> Speed | None:
    """How quick this call was, by its own lines; None where it drew or trained nothing."""
    tally, drawing = runner.record.tally, runner.drawing
    before = {id(line) for line in tally.earlier_batches}
    lines = [line for line in tally.all_batches() if id(line) not in before and not line.cached]
    images = sum(len(line.samples) for line in lines)
    trained = {name: line.seconds for name, line in tally.arms.items() if calls.get(name) and line.seconds}
    operations, training = drawing.calls * once, once * sum(calls[name] for name in trained)
    if before or not (images and training and drawing.seconds > 0):
        return None
    pace = drawing.seconds / drawing.calls  # seconds a call of the denoiser
    own = sum(runner.plan.sampler_of(runner.plan.arm(line.arm)).calls * len(line.samples) for line in lines)
    image = max(0.0, sum(line.seconds for line in lines) - own * pace) / images
    found = Speed(
        runner.record.device[0],
        once,
        flops=operations / drawing.seconds,
        training_flops=training / sum(trained.values()),
        image=image,
        start=start,
        around=1.0,
    )
    accounted = found.seconds(operations, images, training) - start
    return replace(found, around=max(1.0, whole / accounted))
