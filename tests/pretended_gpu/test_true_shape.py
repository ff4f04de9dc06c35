"""Stable Diffusion's true shape, as shapes alone: operations of a call and bytes of every phase, by the
product's own defaults."""

from __future__ import annotations

from typing import Any

import pytest

from tests.pretended_gpu.device import GIB
from tests.pretended_gpu.walking import Walked, fails_today, needs_a_pretended_gpu

pytestmark = needs_a_pretended_gpu

FAMILIES = ["sd1", pytest.param("sd21", marks=pytest.mark.science)]
both = pytest.mark.parametrize("family", FAMILIES)


def peak(walked: Walked, family: str, phase: str) -> float:
    """GiB beside what was there before."""
    return float(walked("shapes", family)["peaks"][phase]) / GIB


def shape(walked: Walked, family: str) -> dict[str, Any]:
    return walked("shapes", family)


@pytest.mark.parametrize(
    ("family", "gib"), [("sd1", 3.97), pytest.param("sd21", 4.8, marks=pytest.mark.science)]
)
def test_a_model_takes_its_weights(walked: Walked, family: str, gib: float) -> None:
    assert peak(walked, family, "load") == pytest.approx(gib, rel=0.02)


@fails_today("float32 weights are cast again at every call")
@both
def test_a_call_of_the_denoiser_is_at_most_800_operations(walked: Walked, family: str) -> None:
    assert shape(walked, family)["operations"] <= 800


@fails_today("float32 weights are cast again at every call")
@both
def test_a_call_of_the_denoiser_casts_at_most_20_times(walked: Walked, family: str) -> None:
    assert shape(walked, family)["casts"] <= 20


@fails_today("two images at 512 pixels and one at 768 are drawn at once, whatever the card")
@both
def test_a_card_of_80_gb_draws_16_images_at_once(walked: Walked, family: str) -> None:
    assert shape(walked, family)["batch"] >= 16


@both
def test_attention_of_the_denoiser_is_flash(walked: Walked, family: str) -> None:
    """Heads are 160 wide at most; the autoencoder's one is 512 wide and in float32."""
    assert shape(walked, family)["attention"]["flash"] >= 32


@both
def test_drawing_takes_little_beside_the_model(walked: Walked, family: str) -> None:
    assert peak(walked, family, "draw") < 10


@both
def test_decoding_takes_little_beside_the_model(walked: Walked, family: str) -> None:
    assert peak(walked, family, "decode") < 10


@fails_today("64 images go through the autoencoder at once, in float32")
@pytest.mark.parametrize(("family", "most"), [("sd1", 4), pytest.param("sd21", 8, marks=pytest.mark.science)])
def test_encoding_a_training_set_takes_little_beside_the_model(
    walked: Walked, family: str, most: float
) -> None:
    assert peak(walked, family, "encode") < most


@both
def test_the_held_out_loss_takes_little_beside_the_model(walked: Walked, family: str) -> None:
    assert peak(walked, family, "held-out loss") < 10


@pytest.mark.parametrize(
    ("family", "most"), [("sd1", 10), pytest.param("sd21", 20, marks=pytest.mark.science)]
)
def test_a_lora_step_takes_little_beside_the_model(walked: Walked, family: str, most: float) -> None:
    assert peak(walked, family, "lora step") < most


@pytest.mark.parametrize(
    ("family", "most"), [("sd1", 16), pytest.param("sd21", 28, marks=pytest.mark.science)]
)
def test_a_full_step_takes_gradients_moments_and_activations(
    walked: Walked, family: str, most: float
) -> None:
    assert 3 * 3.2 < peak(walked, family, "full step") < most


def runs_out(walked: Walked, family: str, card: int) -> list[str]:
    """In what memory runs out on a card of so many GB that holds base, erased model and an arm's denoiser."""
    found: list[str] = walked("fits", family)[str(card)]
    return found


@pytest.mark.science
@pytest.mark.parametrize(("family", "card"), [("sd1", 12), ("sd21", 16)])
def test_a_small_card_draws(walked: Walked, family: str, card: int) -> None:
    assert "drawing" not in runs_out(walked, family, card)


@pytest.mark.science
@pytest.mark.parametrize(("family", "card"), [("sd1", 16), ("sd1", 24), ("sd21", 48)])
def test_a_card_trains_a_lora(walked: Walked, family: str, card: int) -> None:
    assert "lora" not in runs_out(walked, family, card)


@pytest.mark.science
@fails_today("24 * 10^9 bytes count as roomy, so a card of 24 GB keeps all activations")
def test_a_card_of_24_gb_trains_a_lora_at_768_pixels(walked: Walked) -> None:
    assert "lora" not in runs_out(walked, "sd21", 24)


@pytest.mark.science
@fails_today("base and erased model stay on the card while an arm trains")
@pytest.mark.parametrize("family", ["sd1", "sd21"])
def test_a_card_of_24_gb_fine_tunes_in_full(walked: Walked, family: str) -> None:
    assert "full" not in runs_out(walked, family, 24)


@pytest.mark.science
@fails_today("64 images go through the autoencoder at once, in float32")
@pytest.mark.parametrize("family", ["sd1", "sd21"])
def test_a_card_of_24_gb_encodes_a_training_set(walked: Walked, family: str) -> None:
    assert "encoding" not in runs_out(walked, family, 24)


@pytest.mark.science
def test_a_card_of_80_gb_does_all_of_it(walked: Walked) -> None:
    assert runs_out(walked, "sd1", 80) == []


@pytest.mark.science
@fails_today("64 images go through the autoencoder at once, in float32")
def test_a_card_of_80_gb_does_all_of_it_at_768_pixels(walked: Walked) -> None:
    assert runs_out(walked, "sd21", 80) == []
