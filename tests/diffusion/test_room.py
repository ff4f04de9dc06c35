"""How much room training takes, and that nothing is moved where there is no GPU."""

from __future__ import annotations

import pytest

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._diffusion.model import digest_of_weights
from auditor._diffusion.room import room_for_training, training_takes

pytestmark = pytest.mark.usefixtures("nano")


def test_a_full_fine_tune_takes_gradients_and_two_moments(nano: None) -> None:
    model = load_model(open_checkpoint("micro"))
    weights = 4 * sum(each.numel() for each in model.unet.parameters())
    assert training_takes(model, "full") - training_takes(model, "lora") == 3 * weights


def test_on_a_cpu_everybody_stays_where_they_are(nano: None) -> None:
    model, other = (load_model(open_checkpoint("micro")) for _ in range(2))
    places = {name: value.data_ptr() for name, value in other.unet.state_dict().items()}
    digest = digest_of_weights(other.unet)
    with room_for_training(model, "full", [other]):
        assert places == {name: value.data_ptr() for name, value in other.unet.state_dict().items()}
    assert digest_of_weights(other.unet) == digest
