"""Step 3: when the bits of an image are the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tests.gpu.setting import GIB, Setting
from tests.gpu.walks import PROMPTS

if TYPE_CHECKING:
    from torch import Tensor

    from auditor._diffusion.model import DiffusionModel

_TOLERANCE = 8
_LEFT = 2 * GIB


def run(setting: Setting) -> None:
    """a: twice; b: in other batches; c: texts in company; d: other rows beside; e: no-op controls; f: little
    memory."""
    model, many = setting.model(), setting.few(16, 4)
    prompts, seeds = (PROMPTS * many)[:many], list(range(many))
    whole = _drawn(setting, model, prompts, seeds)
    again = _drawn(setting, model, prompts, seeds)
    _compare(setting, f"a. {many} images twice", whole, again, "all equal", equal=True)
    _other_batches(setting, model, whole, prompts, seeds)
    _texts(setting, model)
    others = [PROMPTS[2]] * (many // 2)
    beside = _drawn(
        setting, model, prompts[: many // 2] + others, seeds[: many // 2] + list(range(90, 90 + many // 2))
    )
    _compare(
        setting,
        "d. the first half, the other rows changed",
        whole[: many // 2],
        beside[: many // 2],
        "all equal",
        equal=True,
    )
    for method in ("lora", "full"):
        fresh = _no_op(setting, model, method)
        found = _drawn(setting, fresh, prompts, seeds)
        _compare(setting, f"e. after a no-op control, {method}", whole, found, "all equal", equal=True)
        del fresh
    _little_memory(setting, model, whole, prompts, seeds)


def _drawn(setting: Setting, model: DiffusionModel, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
    from auditor._diffusion.sampling import draw
    from auditor.policy import Sampler

    sampler = Sampler(scheduler="dpm-solver++", steps=setting.few(10), size=setting.pixels)
    return draw(model, prompts, seeds, sampler)[0]


def _compare(
    setting: Setting, what: str, one: Tensor, two: Tensor, expected: str, *, equal: bool | None
) -> None:
    difference = (one.int() - two.int()).abs().flatten(1).amax(1)
    same = int((difference == 0).sum())
    found = {"images": len(one), "equal": same, "largest difference of 255": int(difference.max())}
    good = None if equal is None else (same == len(one)) == equal
    setting.write(what, found, expected, good)


def _other_batches(
    setting: Setting, model: DiffusionModel, whole: Tensor, prompts: Sequence[str], seeds: Sequence[int]
) -> None:
    import torch

    for size in (1, 2, 4, 8):
        if size < len(prompts):
            parts = [
                _drawn(setting, model, prompts[at : at + size], seeds[at : at + size])
                for at in range(0, min(len(prompts), 8), size)
            ]
            found = torch.cat(parts)
            expected = f"not equal, some pixel above {_TOLERANCE}"
            _compare(setting, f"b. in batches of {size}", whole[: len(found)], found, expected, equal=None)


def _texts(setting: Setting, model: DiffusionModel) -> None:
    import torch

    prompts = [f"{prompt}, {number}" for number in range(3) for prompt in PROMPTS][:14]
    model.forget_text_states()
    together = model.text_states(prompts)
    model.forget_text_states()
    alone = torch.cat([model.text_states([prompt]) for prompt in prompts])
    same = sum(torch.equal(one, two) for one, two in zip(alone, together, strict=True))
    setting.write(
        "c. texts that are the same alone and among 14",
        [same, len(prompts)],
        "all, once texts are encoded at one fixed size",
    )


def _no_op(setting: Setting, model: DiffusionModel, method: str) -> DiffusionModel:
    """What an audit's no-op control draws from: two steps at learning rate 0, then a fresh copy."""
    from auditor._audit.run_folder.arms import digest_of_arm, rebuilt
    from auditor._diffusion.finetune import Training, finetune
    from auditor._diffusion.original import Original

    original = Original(model)
    made = original.copy([model.family.denoiser])
    for _ in finetune(made, examples_of(setting, made), Training(method, 0.0), [2], 0):
        allowed = ("denoiser.*.lora_*",) if method == "lora" else ("denoiser.*",)
        change = original.change(made, allowed, "the no-op control", may_be_nothing=True)
        return rebuilt(original, made, change, digest_of_arm(made))
    raise RuntimeError("the fine-tune reached no step")


def examples_of(setting: Setting, model: DiffusionModel, count: int = 8) -> Any:
    """Latents of noise with prompts, always the same."""
    import torch

    from auditor._diffusion.finetune import Examples

    generator = torch.Generator().manual_seed(0)
    means = torch.randn(count, *model.latent_shape(setting.pixels), generator=generator).to(setting.device)
    return Examples(means, torch.zeros_like(means), model.condition((PROMPTS * count)[:count]))


def _little_memory(
    setting: Setting, model: DiffusionModel, whole: Tensor, prompts: Sequence[str], seeds: Sequence[int]
) -> None:
    """cuDNN may choose other kernels where there is no room for their workspaces."""
    import torch

    if setting.kind != "gpu":
        setting.write("f. with 2 GiB free", None, "asked of a GPU alone")
        return
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0]
    filler = torch.empty(max(0, free - _LEFT), dtype=torch.uint8, device=setting.device)
    try:
        few = _drawn(setting, model, prompts[:2], seeds[:2])
    finally:
        del filler
    same = _drawn(setting, model, prompts[:2], seeds[:2])
    _compare(setting, "f. two images with 2 GiB free", same, few, "all equal, or memory ran out", equal=None)
