"""Step 1: the micro world, whole: an erasure, an audit with three probes, its replay; waits of the loops."""

from __future__ import annotations

from typing import Any

from tests.gpu import walks
from tests.gpu.setting import Setting


def run(setting: Setting) -> None:
    """First what counts most: does it run, are shams and replay the same?"""
    from tests.nano import nano_erased

    place = setting.work / "world"
    place.mkdir()
    took = setting.seconds(
        lambda: nano_erased(place / "esd") if setting.small else walks.erase_with("esd", place)
    )
    setting.write("seconds to erase by ESD", took)
    found: dict[str, Any] = {}
    fewer = walks.FEWER if setting.small else {}
    again = setting.few(20, 1)
    took = setting.seconds(lambda: found.update(walks.audit_and_replay(place / "esd", place, again, **fewer)))
    setting.write("seconds of an audit and its replay", took)
    setting.write("errors", found["errors"], "none", not found["errors"])
    setting.write(
        "images that no-op controls changed", found["shams"], "0 of each probe", not any(found["shams"])
    )
    setting.write(
        "replay: images, identical ones",
        [found["replayed"], found["identical"]],
        "the same",
        found["replayed"] == found["identical"] > 0,
    )
    _waits(setting)


def _waits(setting: Setting) -> None:
    """As on the pretended GPU, where tests hold them down."""
    import torch

    from auditor._checkpoint import open_checkpoint
    from auditor._checkpoint.load import load_model
    from auditor._diffusion.finetune import Examples, Training, finetune
    from auditor._diffusion.sampling import draw
    from auditor.policy import Sampler

    model = load_model(open_checkpoint("micro"), device=setting.device)
    model.condition(["", *walks.PROMPTS])
    for scheduler in ("dpm-solver++", "ddim"):
        waits = []
        for steps in (2, 4):
            sampler = Sampler.model_validate(walks.SAMPLER | {"scheduler": scheduler, "steps": steps})
            waits.append(setting.waits(lambda how=sampler: draw(model, walks.PROMPTS[:2], [1, 2], how)))
        few, many = waits
        each = None if few is None or many is None else (many - few) / 2
        setting.write(f"waits of a step of {scheduler}", each, "0", None if each is None else each == 0)
    images = torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8)
    examples = Examples.of(model, images, walks.PROMPTS[:4])
    for method in ("lora", "full")[: setting.few(2, 1)]:
        training = Training(method, 1e-4)
        waits = [
            setting.waits(lambda n=n, how=training: list(finetune(model, examples, how, [n], 0)))
            for n in (2, 4)
        ]
        few, many = waits
        each = None if few is None or many is None else (many - few) / 2
        setting.write(
            f"waits of a training step, {method}", each, "at most 1", None if each is None else each <= 1
        )
