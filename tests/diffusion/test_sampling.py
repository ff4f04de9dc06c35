"""Sampling: one generator a sample, so that batch and order cannot matter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.sampling import draw, first_noise
from auditor.errors import UsageError
from auditor.policy import Sampler

SAMPLER = Sampler(scheduler="dpm-solver++", steps=6, guidance=4.0, size=32)


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return load_model(open_checkpoint("micro"))


def test_noise_depends_on_the_seed_alone(model: DiffusionModel) -> None:
    assert torch.equal(first_noise(model, [3, 1, 2], 32)[1], first_noise(model, [1], 32)[0])


@pytest.mark.parametrize("scheduler", ["ddim", "dpm-solver++"])
def test_an_image_is_the_same_in_any_batch(model: DiffusionModel, scheduler: str) -> None:
    sampler = SAMPLER.model_copy(update={"scheduler": scheduler})
    prompts = ["a photo of the ship", "a portrait of Imka Soren", "a photo of the dog"]
    together, _ = draw(model, prompts, [1, 2, 3], sampler)
    backwards, _ = draw(model, prompts[::-1], [3, 2, 1], sampler)
    alone, _ = draw(model, prompts[1:2], [2], sampler)
    again, _ = draw(model, prompts, [1, 2, 3], sampler)
    assert torch.equal(together, again)
    assert (together.int() - backwards.flip(0).int()).abs().max() <= 2
    assert (together[1].int() - alone[0].int()).abs().max() <= 2


def test_a_model_that_is_not_finite_says_so(model: DiffusionModel) -> None:
    with torch.no_grad():
        kept = model.unet.conv_out.bias.clone()
        model.unet.conv_out.bias.fill_(float("nan"))
        images, finite = draw(model, ["a photo of the ship"], [1], SAMPLER)
        model.unet.conv_out.bias.copy_(kept)
    assert not finite.any() and images.max() == 0


PROMPTS = ["a photo of the ship", "a portrait of Imka Soren", "a photo of the dog"]


def rows_of(model: DiffusionModel, sampler: Sampler, count: int = 3, **more: int) -> tuple[list[int], Tensor]:
    """How many rows each call of the denoiser had, and the images."""
    rows: list[int] = []
    hook = model.denoiser.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    images, finite = draw(model, PROMPTS[:count], range(count), sampler, **more)
    hook.remove()
    assert finite.all() and len(images) == count
    return rows, images


def test_guidance_is_left_out_where_the_interval_says_so(model: DiffusionModel) -> None:
    whole, guided = rows_of(model, SAMPLER)
    part = SAMPLER.model_copy(update={"guidance_interval": (0.2, 0.7)})
    rows, images = rows_of(model, part)
    assert whole == [6] * 6 and rows == [3, 6, 6, 6, 3, 3]
    assert sum(rows) == 3 * part.calls and sum(whole) == 3 * SAMPLER.calls
    assert not torch.equal(images, guided)
    none, _ = rows_of(model, SAMPLER.model_copy(update={"guidance_interval": (0.0, 0.1)}))
    assert none == [3] * 6


def test_what_came_later_leaves_the_digest_of_older_policies_alone() -> None:
    assert not {"guidance_interval", "compile"} & SAMPLER.model_dump().keys()
    said = SAMPLER.model_copy(update={"guidance_interval": (0.2, 0.7), "compile": True}).model_dump()
    assert said["guidance_interval"] == (0.2, 0.7) and said["compile"] is True
    with pytest.raises(ValueError, match="no whole step"):
        Sampler(steps=6, guidance_interval=(0.0, 0.1))
    with pytest.raises(ValueError, match="begins before it ends"):
        Sampler(guidance_interval=(0.7, 0.2))


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes the way that it takes on a GPU; the arithmetic is the CPU's."""
    monkeypatch.setattr(DiffusionModel, "on_gpu", True)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_gpu_always_computes_as_many_rows_and_texts(model: DiffusionModel) -> None:
    texts: list[int] = []
    encoder = model.parts["text_encoder"]
    hook = encoder.register_forward_pre_hook(lambda module, given: texts.append(len(given[0])))
    model.forget_text_states()
    rows, images = rows_of(model, SAMPLER, rows=2)
    again, other = rows_of(model, SAMPLER, count=1, rows=2)
    hook.remove()
    assert rows == [4] * 12 and again == [4] * 6 and set(texts) == {16}
    assert torch.equal(images[:1], other)
    sampler = SAMPLER.model_copy(update={"batch": 4})
    assert rows_of(model, sampler)[0] == [8] * 6


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_gpu_draws_from_copies_of_the_weights_and_holds_its_own_again(model: DiffusionModel) -> None:
    half = replace(model, precision=torch.bfloat16)
    before = dict(model.denoiser.named_parameters())
    kinds: set[torch.dtype] = set()
    hook = model.denoiser.conv_in.register_forward_pre_hook(
        lambda module, given: kinds.update((given[0].dtype, module.weight.dtype))
    )
    _, images = rows_of(half, SAMPLER, rows=3)
    hook.remove()
    assert kinds == {torch.bfloat16}
    assert all(value is before[name] for name, value in model.denoiser.named_parameters())
    assert (images.float() - rows_of(model, SAMPLER, rows=3)[1].float()).abs().mean() < 4

    def broken(module: object, given: object) -> None:
        raise RuntimeError("no")

    hook = model.denoiser.mid_block.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="no"):
        draw(half, PROMPTS, range(3), SAMPLER, rows=3)
    hook.remove()
    assert all(value is before[name] for name, value in model.denoiser.named_parameters())


def test_without_a_compiler_nothing_is_compiled(
    model: DiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match=r"sampler.compile needs a C\+\+ compiler"):
        draw(model, PROMPTS, range(3), SAMPLER.model_copy(update={"compile": True}))
