"""Sampling: one generator a sample, so that batch and order cannot matter."""

from __future__ import annotations

import pytest
import torch

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.sampling import draw, first_noise
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
