"""Plugins with one fault each, as a third party might ship them. Loaded as a file by the tests beside it."""

import asyncio
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig

from auditor.builtins.detectors.clip_zero_shot import ClipZeroShot
from auditor.builtins.metrics.clip_score import ClipScore
from auditor.errors import RefusedError, UsageError
from auditor.plugin import hookimpl
from auditor.plugin.contracts import Probe

print("hello from a plugin that prints when it is imported")
random.seed(1)
torch.manual_seed(1)


class Noise(Probe):
    """A sound probe; the faults below are its children."""

    name = "sound-noise"
    summary = "a little noise"

    def training_set(self, setting):
        return []

    def least_change(self):
        return 1e-4

    def update(self, update):
        print("hello from a probe that prints")
        torch.rand(3), random.random(), np.random.rand()
        for weight in update.model.unet.parameters():
            weight.data.mul_(1 + 1e-3)
        yield from update.doses


def broken_at(step):
    """A child of Noise that does ``step`` to the model after its update."""

    def update(self, update):
        for dose in Noise.update(self, update):
            step(update)
            yield dose

    return update


def fault(fault_name, **members):
    """A child of Noise called ``fault_name``."""
    return type(fault_name, (Noise,), {"name": fault_name, **members})


def raises(*_, **__):
    raise RuntimeError("out of luck")


def refuses(*_, **__):
    raise RefusedError("a LoRA of mine is malformed")


def leaves(*_, **__):
    raise SystemExit(0)


class Panic(BaseException):
    """What a library in Rust raises."""


def panics(*_, **__):
    raise Panic("called unwrap on None")


def is_cancelled(*_, **__):
    raise asyncio.CancelledError


def ends_its_generator(self, update):
    yield from ()
    raise GeneratorExit


def raises_many(*_, **__):
    raise BaseExceptionGroup("two at once", [Panic("one"), RuntimeError("two")])


def raises_no_text(*_, **__):
    raise RuntimeError("\ud800" * 100_000)


def hangs(*_, **__):
    time.sleep(600)


def reshapes(update):
    update.model.unet.conv_in.bias.data = torch.zeros(1)


def fills(module):
    next(module.parameters()).data.fill_(0.5)


def adds_adapters(*names, off=False):
    def step(update):
        for name in names:
            update.model.unet.add_adapter(
                LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False), adapter_name=name
            )
        if off:
            update.model.unet.disable_adapters()

    return step


class IdleAdapter(Noise):
    """Adds a LoRA whose product is 0: many new numbers, the same images."""

    name = "idle-adapter"

    def update(self, update):
        update.model.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]), adapter_name="idle")
        yield from update.doses


PROBES = [
    Noise,
    IdleAdapter,
    fault("probe-leaves-an-adapter-off", update=broken_at(adds_adapters("one", off=True))),
    fault("probe-adds-two-adapters", update=broken_at(adds_adapters("one", "two"))),
    fault(
        "probe-patches-a-module",
        update=broken_at(lambda update: setattr(update.model.unet.conv_in, "forward", None)),
    ),
    fault("probe-trains-without-a-sham", training_set=lambda self, setting: Path("examples")),
    fault("probe-has-a-sham-and-trains-on-nothing", has_sham=True),
    fault("probe-reads-a-bad-file", update=refuses),
    fault("probe-raises", update=raises),
    fault("probe-raises-when-asked", training_set=raises),
    fault("probe-exits", update=leaves),
    fault("probe-panics", update=panics),
    fault("probe-panics-when-asked", training_set=panics),
    fault("probe-panics-about-its-changes", changes=panics),
    fault("probe-panics-about-its-least-change", least_change=panics),
    fault("probe-panics-about-its-calls", training_calls=panics),
    fault("probe-is-cancelled", update=broken_at(is_cancelled)),
    fault("probe-ends-its-generator", update=ends_its_generator),
    fault("probe-raises-many", update=broken_at(raises_many)),
    fault("probe-raises-no-text", update=raises_no_text),
    fault("probe-returns-nothing", update=lambda self, update: None),
    fault("probe-yields-words", update=lambda self, update: iter(["one"])),
    fault("probe-reaches-another-dose", update=lambda self, update: iter([7])),
    fault("probe-changes-nothing", update=lambda self, update: iter(update.doses)),
    fault("probe-changes-the-autoencoder", update=broken_at(lambda update: fills(update.model.vae))),
    fault(
        "probe-changes-the-text-encoder", update=broken_at(lambda update: fills(update.model.text_encoder))
    ),
    fault("probe-reshapes", update=broken_at(reshapes)),
    fault(
        "probe-leaves-a-hook",
        update=broken_at(lambda update: update.model.unet.register_forward_hook(lambda *_: None)),
    ),
    fault(
        "probe-swaps-the-scheduler", update=broken_at(lambda update: update.model.scheduler_config.clear())
    ),
    fault("probe-promises-nothing", least_change=lambda self: None),
    fault("probe-says-nonsense", changes=lambda self, method: "unet.*"),
    fault("probe-wants-a-number", training_set=lambda self, setting: 7),
    fault("probe-cannot-be-made", __init__=raises),
    fault("probe-hangs", update=hangs),
]


def answering(detector_name, change):
    """The built-in detector, whose answer goes through ``change``."""

    def detect(self, images, concepts):
        return change(ClipZeroShot.detect(self, images, concepts), images)

    return type(detector_name, (ClipZeroShot,), {"name": detector_name, "detect": detect})


def spoils(found, images):
    images.zero_()
    return found


def leaks(found, images):
    raise MemoryError("every byte is gone")


DETECTORS = [
    answering("detector-raises", raises),
    answering("detector-exits", leaves),
    answering("detector-panics", panics),
    answering("detector-raises-many", raises_many),
    answering("detector-returns-nothing", lambda found, images: None),
    answering("detector-says-nan", lambda found, images: replace(found, scores=found.scores * np.nan)),
    answering("detector-says-numbers", lambda found, images: replace(found, hits=found.hits.astype(int))),
    answering("detector-spoils-its-images", spoils),
    answering("detector-leaks", leaks),
    answering(
        "detector-sees-nothing",
        lambda found, images: replace(found, hits=found.hits & False, scores=found.scores * 0),
    ),
    answering("detector-hangs", hangs),
]


def misuses(*_, **__):
    raise UsageError("the weights of this metric are not here")


METRICS = [
    type("Ruler", (ClipScore,), {"name": "metric-raises", "features": raises}),
    type("Panicking", (ClipScore,), {"name": "metric-panics", "features": panics, "value": panics}),
    type("Misuse", (ClipScore,), {"name": "metric-misuses", "features": misuses}),
    type(
        "Words",
        (ClipScore,),
        {
            "name": "metric-says-words",
            "features": lambda self, images, prompts: np.array([["x"]] * len(images)),
        },
    ),
    type(
        "Not",
        (ClipScore,),
        {"name": "metric-says-nan", "value": lambda self, features, reference: float("nan")},
    ),
    type("Sleeper", (ClipScore,), {"name": "metric-hangs", "features": hangs}),
]


@hookimpl
def auditor_register_probes():
    return PROBES


@hookimpl
def auditor_register_detectors():
    return DETECTORS


@hookimpl
def auditor_register_metrics():
    return METRICS


@hookimpl
def auditor_arm_ready(record):
    raise UsageError("an observer that raises")
