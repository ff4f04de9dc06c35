"""What our loops cost beside the bare model calls they wrap, each ratio measured in one run. ``make
bench`` prints them."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._diffusion.finetune import Examples, Training, finetune
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.original import Original
from auditor._diffusion.sampling import batch_size, draw
from auditor._diffusion.side_by_side import side_by_side
from auditor._diffusion.together import Member, Together
from auditor.policy import Sampler

pytestmark = pytest.mark.bench
SAMPLER = Sampler(scheduler="dpm-solver++", steps=15, guidance=4.0, size=32)


def ratio(ours: Callable[[], object], bare: Callable[[], object], repeats: int = 7) -> float:
    """Median over ``repeats`` of ours / bare, measured in turns."""
    values = []
    for _ in range(repeats + 1):
        times = []
        for call in (ours, bare):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        values.append(times[0] / times[1])
    return statistics.median(values[1:])


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return load_model(open_checkpoint("micro"))


def test_sampling_costs_little_more_than_its_unet_calls(model: DiffusionModel) -> None:
    count = batch_size(model, SAMPLER)
    prompts = [f"a photo of the {name}" for name in ("ship", "dog", "cat", "lamp")] * (count // 4)
    latents, states = torch.randn(2 * count, 4, 8, 8), model.text_states(prompts * 2)

    @torch.no_grad()
    def bare() -> None:
        for step in range(SAMPLER.steps):
            model.unet(latents, torch.tensor(step), states, return_dict=False)

    measured = ratio(lambda: draw(model, prompts, range(count), SAMPLER), bare)
    print(f"sampling / bare UNet calls at batch {count}: {measured:.3f}")
    assert measured <= 1.15


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_training_step_costs_little_more_than_the_bare_one(model: DiffusionModel, method: str) -> None:
    batch, steps = 16, 10
    images = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8)
    examples = Examples.of(model, images, ["a photo of the dog"] * batch)
    weights = {name: value.clone() for name, value in model.unet.state_dict().items()}
    training = Training(method, 1e-5, batch)
    bare_seconds: list[float] = []

    def ours() -> float:
        marks: list[float] = []
        for _ in finetune(
            model, examples, training, [steps + 1], 1, on_step=lambda step: marks.append(time.perf_counter())
        ):
            noisy, times = torch.randn(batch, 4, 8, 8), torch.randint(0, 1000, (batch,))
            parameters = [p for p in model.unet.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
            for _ in range(steps):
                began = time.perf_counter()
                functional.mse_loss(
                    model.unet(noisy, times, examples.condition.rows["states"], return_dict=False)[0], noisy
                ).backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                bare_seconds.append(time.perf_counter() - began)
        model.unet.load_state_dict(weights)
        return statistics.median([b - a for a, b in itertools.pairwise(marks)])

    values = [ours() for _ in range(4)]
    measured = statistics.median(values[1:]) / statistics.median(bare_seconds[steps:])
    print(f"training step / bare forward + backward + step, {method}: {measured:.3f}")
    assert measured <= 1.15


def test_five_loras_in_company_cost_less_than_five_alone(model: DiffusionModel) -> None:
    """As ``micro-person`` has them: rank 4, batch 4; three in one pass, two in another, side by side."""
    steps, original, training = 20, Original(model), Training("lora", 1e-3)
    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8)
    examples = Examples.of(model, images, [f"a photo of the dog {number}" for number in range(40)])
    members = [Member(examples, training, [steps], seed) for seed in range(5)]

    def alone() -> None:
        for member in members:
            list(finetune(original.copy(["unet"]), examples, training, member.doses, member.seed))

    def together() -> None:
        passes = [Together(original.copy(["unet"]), part) for part in (members[:3], members[3:])]
        side_by_side([each.train for each in passes])

    measured = ratio(together, alone, repeats=3)
    print(f"five LoRAs in company / alone, {torch.get_num_threads()} threads: {measured:.3f}")
    assert measured <= 0.8
