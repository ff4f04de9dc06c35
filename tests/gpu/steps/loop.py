"""Step 7: an audit's own loop at true shape, on two checkpoints of random weights."""

from __future__ import annotations

import time
from pathlib import Path
from unittest import mock

from tests.gpu.setting import SHAPE, Setting
from tests.gpu.walks import errors_of, lines_of, small_policy

_PERSON = {"domain": "people", "prompts": ["a photo of {}"]}
_WAIT = 40  # seconds for what the background still writes


def run(setting: Setting) -> None:
    """As auditor chooses, then two images at once. Random weights draw noise, which is no picture: here alone
    nothing is looked for in it (``flaw_of``)."""
    folders = [_ready(setting, name) for name in ("base", "erased")]
    for batch in ("auto", 2):
        with (
            mock.patch("auditor._diffusion.drawing.flaw_of", lambda image, finite: None),
            mock.patch("auditor._audit.run.drawing.flaw_of", lambda image, finite: None),
        ):
            _audit(setting, folders[0], folders[1], batch)


def checkpoints(work: Path) -> list[list[str]]:
    """The arguments of :mod:`tests.science.true_size` that write both."""
    return [
        ["make", str(work / "base"), SHAPE, "0"],
        ["make", str(work / "erased"), SHAPE, "1"],
    ]


def _ready(setting: Setting, name: str) -> Path:
    from tests.nano import WEIGHTS, nano_erased

    if setting.small:
        return WEIGHTS if name == "base" else nano_erased(setting.work / "nano-erased")
    folder, began = setting.work / name, time.monotonic()
    while not (folder / "model_index.json").exists():  # written last
        if time.monotonic() - began > _WAIT:
            raise TimeoutError(f"{folder} was not written in time.")
        time.sleep(0.5)
    return folder


def _audit(setting: Setting, base: Path, erased: Path, batch: str | int) -> None:
    import auditor

    out, few = setting.work / f"run-{batch}", setting.few(8 if batch == "auto" else 3)
    sampler = {"scheduler": "dpm-solver++", "steps": setting.few(25), "size": setting.pixels, "batch": batch}
    policy = small_policy(
        base={"source": str(base)},
        erase=[_PERSON | {"name": "Borin Talvek", "mapping": "a person"}],
        retain=[_PERSON | {"name": "Zelda Mirkov"}],
        sampler=sampler,
        probes=[{"use": "sampling", "options": {"steps": setting.few(24, 3)}}],
        metrics=[],
        budget={"images_per_cell": few, "retained_per_arm": few},
    )
    took = setting.seconds(
        lambda: auditor.audit(str(erased), policy, out, cache=setting.work / f"cache-{batch}")
    )
    lines = lines_of(out, "batch")
    images = sum(len(line["samples"]) for line in lines)
    each = sum(line["seconds"] for line in lines) / images
    largest = max(len(line["samples"]) for line in lines)
    setting.write(f"images of an audit, batch {batch}, and the most at once", [images, largest])
    low, high = (0.4, 0.9) if batch == 2 else (0.05, 0.35)
    setting.within(f"seconds an image, batch {batch}", each, low, high)
    setting.write(f"seconds beside drawing, batch {batch}", took - each * images)
    setting.write(f"errors, batch {batch}", errors_of(out), "none", not errors_of(out))
