"""Step 4: training steps: time, memory, and whether two runs of one seed end in the same weights."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.gpu.setting import Setting
from tests.gpu.steps.bits import examples_of

if TYPE_CHECKING:
    from auditor._diffusion.model import DiffusionModel

_WANTED = {"lora": (40, 110), "full": (80, 160)}
_PEAK = {"lora": (3, 9), "full": (12, 20)}


def run(setting: Setting) -> None:
    """Both methods at batch 4, then seeds, then LoRA at larger batches."""
    model = setting.model()
    for method, batch in (("lora", 4), ("full", 4)):
        _time(setting, model, method, batch)
    usual = _digests(setting, model, exact=False)
    setting.write("5 LoRA steps twice from one seed", usual, "different")
    exact = _digests(setting, model, exact=True)
    same = exact["first"] == exact["second"]
    setting.write("the same, deterministic algorithms asked for", exact, "equal", same)
    setting.write("how many times as long the deterministic steps take", exact["seconds"] / usual["seconds"])
    for batch in (8, 16):
        _time(setting, model, "lora", batch)


def _trained(setting: Setting, model: DiffusionModel, steps: int) -> str:
    """sha256 of the LoRA that ``steps`` make."""
    from auditor._diffusion.finetune import Training, finetune
    from auditor._diffusion.original import Original

    own, digest = Original(model).copy([model.family.denoiser]), hashlib.sha256()
    for _ in finetune(own, examples_of(setting, own), Training("lora", 1e-4), [steps], 0):
        for name, value in sorted(own.denoiser.state_dict().items()):
            if "lora_" in name:
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _time(setting: Setting, model: DiffusionModel, method: str, batch: int) -> None:
    """Seconds of a step: a long run less a short one, so that what is set up once is not in it."""
    from auditor._diffusion.finetune import Training, finetune
    from auditor._diffusion.original import Original

    own = Original(model).copy([model.family.denoiser])
    examples = examples_of(setting, own)
    training = Training(method, 1e-4 if method == "lora" else 1e-5, batch=batch)

    def train(steps: int) -> None:
        list(finetune(own, examples, training, [steps], 0))

    train(1)
    few, many = setting.few(5, 1), setting.few(20, 2)
    short = setting.seconds(lambda: train(few))
    peak: list[float | None] = []
    long = setting.seconds(lambda: peak.append(setting.peak_gib(lambda: train(many))))
    each = (long - short) / (many - few)
    low, high = _WANTED[method] if batch == 4 else (40, 300)
    setting.within(f"ms of a step, {method}, batch {batch}", 1000 * each, low, high)
    setting.within(f"GiB of it, {method}, batch {batch}", peak[0], *_PEAK[method])
    if batch == 4 and (found := setting.profiled(lambda: train(few))) is not None:
        busy = found[1] / short
        setting.within(f"share of the time that the GPU is busy, {method}", busy, 0.3, 0.9)


def _digests(setting: Setting, model: DiffusionModel, *, exact: bool) -> dict[str, object]:
    found: list[str] = []
    steps = setting.few(5, 1)
    with _deterministic() if exact else contextlib.nullcontext():
        took = setting.seconds(lambda: found.append(_trained(setting, model, steps)), 2)
    return {"first": found[0][:12], "second": found[1][:12], "seconds": took}


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    import torch

    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before
        torch.use_deterministic_algorithms(False)
