"""``sampler.compile``: the same images, compiled once for all model states, from the weights at hand."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._diffusion.original import Original
from auditor._diffusion.sampling import draw
from auditor.policy import Sampler

pytestmark = pytest.mark.science


def test_a_compiled_denoiser_draws_the_same_from_whatever_weights() -> None:
    plain = Sampler(scheduler="dpm-solver++", steps=3, size=32, guidance=4.0, batch=4)
    compiled = plain.model_copy(update={"compile": True})
    model = load_model(open_checkpoint("micro"))
    prompts = ["a photo of the ship"] * 4

    def farthest() -> int:
        one, other = (draw(model, prompts, range(4), way)[0] for way in (plain, compiled))
        return int((one.int() - other.int()).abs().max())

    first, _ = draw(model, prompts, range(4), compiled)
    assert farthest() <= 1
    model = Original(model).fresh()
    with torch.no_grad():
        model.unet.conv_in.weight.add_(0.01)
    assert farthest() <= 1
    assert not torch.equal(first, draw(model, prompts, range(4), compiled)[0])
    assert counters["stats"]["unique_graphs"] == 1
