"""Fine-tuning: learns what it is shown, reaches every dose, leaves nothing behind."""

from __future__ import annotations

import copy

import pytest
import torch

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._diffusion.finetune import Examples, Training, denoising_losses, finetune
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.sampling import draw
from auditor.errors import UsageError
from auditor.policy import Sampler
from tests.diffusion.narrow import narrow

SHORT = Sampler(scheduler="dpm-solver++", steps=8, guidance=4.0, size=32)


@pytest.fixture
def model() -> DiffusionModel:
    return load_model(open_checkpoint("micro"))


@pytest.fixture
def examples(model: DiffusionModel) -> Examples:
    """Ships that are called dogs: something that there is to learn."""
    images, _ = draw(
        model,
        ["a photo of the ship"] * 8,
        range(8),
        Sampler(scheduler="dpm-solver++", steps=8, guidance=4.0, size=32),
    )
    return Examples.of(model, images, ["a photo of the dog"] * 8)


@pytest.mark.parametrize(("method", "rate"), [("lora", 1e-3), ("full", 1e-4)])
def test_the_loss_on_what_was_shown_falls(
    model: DiffusionModel, examples: Examples, method: str, rate: float
) -> None:
    before = denoising_losses(model, examples, 0)
    for _ in finetune(model, examples, Training(method, rate, batch=8), [20], seed=1):
        after = denoising_losses(model, examples, 0)
    assert after.mean() < 0.9 * before.mean()


def test_doses_are_reached_within_one_run(model: DiffusionModel, examples: Examples) -> None:
    start = copy.deepcopy(model.unet.state_dict())
    steps = [
        denoising_losses(model, examples, 0).mean().item()
        for _ in finetune(model, examples, Training("full", 1e-4, 4), [2, 4], 1)
    ]
    whole = model.unet.state_dict()
    model.unet.load_state_dict(start)
    list(finetune(model, examples, Training("full", 1e-4, 4), [4], 1))
    assert len(steps) == 2
    assert all(torch.equal(value, whole[name]) for name, value in model.unet.state_dict().items())


def test_a_lora_leaves_the_base_weights_bit_for_bit(model: DiffusionModel, examples: Examples) -> None:
    before = copy.deepcopy(model.unet.state_dict())
    list(finetune(model, examples, Training("lora", 1e-2, 4), [3], 1))
    after = model.unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(parameter.requires_grad for parameter in model.unet.parameters())


def test_activations_that_are_computed_again_give_the_same_weights(
    model: DiffusionModel, examples: Examples
) -> None:
    start = copy.deepcopy(model.unet.state_dict())
    list(finetune(model, examples, Training("full", 1e-4, 4), [2], 1))
    kept = copy.deepcopy(model.unet.state_dict())
    model.unet.load_state_dict(start)
    list(finetune(model, examples, Training("full", 1e-4, 4, checkpointing=True), [2], 1))
    assert all(
        torch.allclose(value, kept[name], atol=1e-6) for name, value in model.unet.state_dict().items()
    )
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.unet.modules())


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_arithmetic_in_half_precision_keeps_float32_weights(
    model: DiffusionModel, examples: Examples, precision: torch.dtype
) -> None:
    whole, _ = draw(model, ["a photo of the ship"], [1], SHORT)
    model.precision = precision
    half, finite = draw(model, ["a photo of the ship"], [1], SHORT)
    again, _ = draw(model, ["a photo of the ship"], [1], SHORT)
    assert bool(finite.all()) and torch.equal(half, again)
    difference = (half.float() - whole.float()).abs()
    assert 0 < difference.mean() < 12
    before = denoising_losses(model, examples, 0).mean()
    list(finetune(model, examples, Training("full", 1e-4, 8), [10], 1))
    assert denoising_losses(model, examples, 0).mean() < before
    assert {value.dtype for value in model.unet.state_dict().values()} == {torch.float32}


def test_eight_bits_without_their_library_say_what_to_install(
    model: DiffusionModel, examples: Examples
) -> None:
    with pytest.raises(UsageError, match=r"pip install 'auditor\[eight-bit\]'"):
        list(finetune(model, examples, Training("lora", 1e-4, 4, eight_bit=True), [1], 1))


def test_training_leaves_the_global_generator_alone(model: DiffusionModel, examples: Examples) -> None:
    state = torch.random.get_rng_state()
    list(finetune(model, examples, Training("lora", 1e-3, 4), [2], 1))
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_step_that_does_not_fit_is_taken_in_passes_of_the_same_mean(
    model: DiffusionModel, examples: Examples, method: str
) -> None:
    """Six rows, of which a card holds two: the first step is begun again twice, and the second is not."""
    training = Training(method, 1e-3, batch=6, weight_decay=0.5)
    narrowed, fewer = copy.deepcopy(model), list[int]()
    first = narrow(narrowed.unet.conv_in, 2)
    ends = [
        finetune(model, examples, training, [2], 3),
        finetune(narrowed, examples, training, [2], 3, on_fewer=fewer.append),
    ]
    assert [next(end) for end in ends] == [2, 2]
    whole, parted = model.unet.state_dict(), narrowed.unet.state_dict()
    assert fewer == [3, 2] and first.asked == [6, 3] + [2] * 6
    assert max(float((value - parted[name]).abs().max()) for name, value in whole.items()) < 1e-4
    assert [list(end) for end in ends] == [[], []]


def test_a_step_that_ran_out_of_memory_on_the_way_back_leaves_no_gradient(
    model: DiffusionModel, examples: Examples
) -> None:
    """Half of the layers have got their gradients by then."""
    narrowed, failed = copy.deepcopy(model), list[int]()

    def short(gradient: torch.Tensor) -> None:
        if len(gradient) > 2:
            failed.append(len(gradient))
            raise torch.OutOfMemoryError("CUDA out of memory.")

    def watch(module: torch.nn.Module, given: object, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(short)

    handle = narrowed.unet.conv_in.register_forward_hook(watch)
    training = Training("full", 1e-3, batch=4)
    for each in (model, narrowed):
        list(finetune(each, examples, training, [2], 3))
    handle.remove()
    whole, parted = model.unet.state_dict(), narrowed.unet.state_dict()
    assert failed == [4]
    assert max(float((value - parted[name]).abs().max()) for name, value in whole.items()) < 1e-4


def test_a_card_that_holds_no_single_row_is_an_error(model: DiffusionModel, examples: Examples) -> None:
    narrow(model.unet.conv_in, 0)
    with pytest.raises(torch.OutOfMemoryError):
        list(finetune(model, examples, Training("lora", 1e-3, batch=4), [1], 3))
    assert not any(parameter.requires_grad for parameter in model.unet.parameters())
