"""Several LoRA fine-tunes in one pass: each is what it would be alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._diffusion.finetune import Examples, Training, finetune
from auditor._diffusion.model import DiffusionModel, digest_of_weights
from auditor._diffusion.original import Original
from auditor._diffusion.side_by_side import side_by_side
from auditor._diffusion.together import Factors, Member, Together, may_join

LORA = Training("lora", 1e-3, batch=2)


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return load_model(open_checkpoint("micro"))


def examples(model: DiffusionModel, seed: int) -> Examples:
    """Noise with a caption: what is learnt does not matter here."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (5, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return Examples.of(model, images, [f"a photo of the lamp {seed} {number}" for number in range(5)])


def alone(model: DiffusionModel, member: Member) -> dict[int, Factors]:
    copy, found = Original(model).copy(["unet"]), {}
    for dose in finetune(copy, member.examples, member.training, member.doses, member.seed):
        state = copy.unet.state_dict()
        found[dose] = {name: value.clone() for name, value in state.items() if "lora" in name}
    return found


def together(model: DiffusionModel, members: list[Member]) -> list[dict[int, Factors]]:
    ((found),) = side_by_side([Together(Original(model).copy(["unet"]), members).train])
    return found


def apart(one: Factors, other: Factors) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_each_learns_what_it_learns_alone(model: DiffusionModel) -> None:
    """Other pictures, seeds, rates, doses and lengths; what one learns does not move another."""
    members = [
        Member(examples(model, 1), LORA, (2, 5), 11),
        Member(examples(model, 2), replace(LORA, learning_rate=1e-2), (3,), 12),
        Member(examples(model, 3), replace(LORA, weight_decay=0.5), (4,), 13),
    ]
    found = together(model, members)
    for member, own in zip(members, found, strict=True):
        expected = alone(model, member)
        assert own.keys() == expected.keys() == set(member.doses)
        assert all(apart(own[dose], expected[dose]) <= 1e-4 for dose in own)
    assert apart(found[0][5], found[1][3]) > 1e-2


def test_the_company_shows_in_the_last_bits_alone_and_is_repeatable(model: DiffusionModel) -> None:
    one, other = (Member(examples(model, seed), LORA, (4,), seed) for seed in (1, 2))
    first, again = together(model, [one, other]), together(model, [one, other])
    assert apart(first[0][4], again[0][4]) == apart(first[1][4], again[1][4]) == 0


def test_nothing_is_left_on_the_denoiser(model: DiffusionModel) -> None:
    copy = Original(model).copy(["unet"])
    side_by_side([Together(copy, [Member(examples(model, 1), LORA, (1,), 1)]).train])
    assert digest_of_weights(copy.unet) == digest_of_weights(model.unet)
    assert not any(part._forward_hooks for part in copy.unet.modules())
    assert not copy.unet.training


def test_rate_0_changes_nothing(model: DiffusionModel) -> None:
    idle = replace(LORA, learning_rate=0.0)
    ((found,),) = (together(model, [Member(examples(model, 1), idle, (2,), 1)]),)
    assert not any(factor.any() for name, factor in found[2].items() if "lora_B" in name)


def test_what_may_join() -> None:
    assert may_join(LORA)
    assert not may_join(replace(LORA, method="full"))
    assert not may_join(replace(LORA, eight_bit=True))
