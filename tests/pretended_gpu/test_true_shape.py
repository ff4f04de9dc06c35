"""Stable Diffusion's true shape, as shapes alone: operations of a call and bytes of every phase, by the
product's own defaults."""

from __future__ import annotations

from typing import Any

import pytest

from auditor.families.stable_diffusion.family import STABLE_DIFFUSION
from tests.pretended_gpu.device import GIB
from tests.pretended_gpu.walking import Walked, needs_a_pretended_gpu

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


@both
def test_a_call_of_the_denoiser_is_at_most_800_operations(walked: Walked, family: str) -> None:
    assert shape(walked, family)["operations"] <= 800


@both
def test_a_call_of_the_denoiser_casts_at_most_20_times(walked: Walked, family: str) -> None:
    assert shape(walked, family)["casts"] <= 20


@pytest.mark.parametrize(
    ("family", "images"), [("sd1", 16), pytest.param("sd21", 7, marks=pytest.mark.science)]
)
def test_a_card_of_80_gb_draws_as_many_latent_pixels_at_once(
    walked: Walked, family: str, images: int
) -> None:
    """Sixteen images of 512 pixels, seven of 768."""
    assert shape(walked, family)["batch"] == images


@pytest.mark.parametrize(
    ("family", "size", "gib"),
    [("sd1", 512, 0.2), pytest.param("sd21", 768, 0.25, marks=pytest.mark.science)],
)
def test_the_plan_foresees_what_activations_take(walked: Walked, family: str, size: int, gib: float) -> None:
    configs = {"unet": {"block_out_channels": [320]}, "vae": {"block_out_channels": [128] * 4}}
    each, batch = STABLE_DIFFUSION.activations(configs, size), shape(walked, family)["batch"]
    half = 1.6  # GiB: the denoiser's 0.86 G parameters in half precision
    found = {
        "draw": half + batch * each.drawn / GIB,
        "encode": each.encoded * max(1, 4 * 512**2 // size**2) / GIB,
        "lora step": 4 * each.lora / GIB,
        "full step": 6 * half + 4 * each.full / GIB,
        "held-out loss": 64 * each.drawn / 2 / GIB,
    }
    for phase, foreseen in found.items():
        assert foreseen == pytest.approx(peak(walked, family, phase), rel=gib), phase


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
def test_a_card_of_24_gb_trains_a_lora_at_768_pixels(walked: Walked) -> None:
    assert "lora" not in runs_out(walked, "sd21", 24)


@pytest.mark.science
@pytest.mark.parametrize("family", ["sd1", "sd21"])
def test_a_card_of_24_gb_fine_tunes_in_full(walked: Walked, family: str) -> None:
    assert "full" not in runs_out(walked, family, 24)


@pytest.mark.science
@pytest.mark.parametrize("family", ["sd1", "sd21"])
def test_a_card_of_24_gb_encodes_a_training_set(walked: Walked, family: str) -> None:
    assert "encoding" not in runs_out(walked, family, 24)


@pytest.mark.science
def test_a_card_of_80_gb_does_all_of_it(walked: Walked) -> None:
    assert runs_out(walked, "sd1", 80) == []


@pytest.mark.science
def test_a_card_of_80_gb_does_all_of_it_at_768_pixels(walked: Walked) -> None:
    assert runs_out(walked, "sd21", 80) == []
