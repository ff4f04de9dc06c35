"""The same images are encoded once, as long as it is the same autoencoder."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._diffusion.latents import same_weights, unequal
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.original import Original

pytestmark = pytest.mark.usefixtures("nano")


class Counting(nn.Conv2d):
    """A convolution that counts the images it has seen, all copies of it together."""

    def forward(self, pixels: Tensor) -> Tensor:
        SEEN.append(len(pixels))
        return super().forward(pixels)


SEEN: list[int] = []


@pytest.fixture
def model(nano: None) -> DiffusionModel:
    found = load_model(open_checkpoint("micro"))
    found.vae.encoder.conv_in.__class__ = Counting
    SEEN.clear()
    return found


def images(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)


def same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    return all(torch.equal(own, theirs) for own, theirs in zip(one, other, strict=True))


def test_a_model_and_copies_of_it_encode_the_same_images_once(model: DiffusionModel) -> None:
    expected = model.encode(images(3))
    model.keep_latents()
    lent, shared = Original(model).fresh(), Original(model).copy(["unet"])
    SEEN.clear()
    found = [each.encode(images(3)) for each in (model, lent, shared, Original(model).fresh())]
    assert SEEN == [3] and all(same(each, expected) for each in found)
    model.encode(images(3, seed=1))
    model.encode(images(2))
    assert SEEN == [3, 3, 2]


def test_what_a_plugins_copy_computes_is_nobody_elses(model: DiffusionModel) -> None:
    """It may have wrapped whatever encodes: that cannot be seen from its weights."""
    model.keep_latents()
    Original(model).fresh().encode(images(3))
    SEEN.clear()
    model.encode(images(3))
    assert SEEN == [3]


def test_what_was_given_out_may_be_changed(model: DiffusionModel) -> None:
    model.keep_latents()
    expected = [each.clone() for each in model.encode(images(3))]
    for each in model.encode(images(3)):
        each.zero_()
    assert same(model.encode(images(3)), (expected[0], expected[1]))


@pytest.mark.parametrize("how", ["weight", "data", "configuration"])
def test_another_autoencoder_encodes_by_itself(model: DiffusionModel, how: str) -> None:
    model.keep_latents()
    before = model.encode(images(3))
    lent = Original(model).fresh()
    if how == "configuration":
        lent.vae.register_to_config(scaling_factor=2 * lent.vae.config.scaling_factor)
    else:
        weight = lent.vae.encoder.conv_in.weight
        with torch.no_grad():
            (weight.data if how == "data" else weight)[0, 0, 0, 0] += 0.5
    SEEN.clear()
    assert not same(lent.encode(images(3)), before)
    assert SEEN == [3]
    assert same(model.encode(images(3)), before) and SEEN == [3]


def test_models_of_one_autoencoder_share_what_is_kept(model: DiffusionModel) -> None:
    other = load_model(open_checkpoint("micro"))
    other.vae.encoder.conv_in.__class__ = Counting
    model.keep_latents()
    other.keep_latents(model)
    expected = model.encode(images(3))
    assert same(other.encode(images(3)), expected) and SEEN == [3]


def test_old_sets_are_let_go(model: DiffusionModel) -> None:
    model.keep_latents()
    for seed in range(25):
        model.encode(images(1, seed))
    model.encode(images(1, 24))
    assert len(SEEN) == 25
    model.encode(images(1, 0))
    assert len(SEEN) == 26


def test_every_difference_is_seen() -> None:
    nan = torch.tensor([1.0, float("nan")])
    pairs = [
        (torch.ones(2, 3), torch.ones(2, 3), False),
        (torch.ones(2, 3), torch.ones(2, 3).index_fill(1, torch.tensor([2]), 2.0), True),
        (nan, nan, True),
        (torch.tensor([3]), torch.tensor([3]), False),
        (torch.tensor(True), torch.tensor(False), True),
        (torch.empty(0), torch.empty(0), False),
    ]
    ones, others, differ = zip(*pairs, strict=True)
    assert unequal(ones, others) == list(differ)
    assert unequal([], []) == []


def test_parts_of_other_shapes_or_names_are_not_the_same(model: DiffusionModel) -> None:
    assert same_weights(model.vae, Original(model).fresh().vae)
    renamed, wider = (Original(model).fresh().vae for _ in range(2))
    renamed.encoder.first = nn.Linear(1, 1)
    wider.encoder.conv_in = nn.Conv2d(3, 1, 3)
    assert not same_weights(model.vae, renamed) and not same_weights(model.vae, wider)
