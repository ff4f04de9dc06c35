"""What a copy differs in is found tensor by tensor, and a part that is shared is looked at once."""

from __future__ import annotations

import pytest
import torch

from auditor._audit.run_folder.arms import digest_of_arm
from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._diffusion.finetune import lora_config
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.original import Original
from auditor.errors import PluginError

pytestmark = pytest.mark.usefixtures("nano")


@pytest.fixture(scope="module")
def model(nano: None) -> DiffusionModel:
    return load_model(open_checkpoint("micro"))


def test_what_moved_is_named_with_how_far(model: DiffusionModel) -> None:
    original = Original(model)
    changed = original.fresh()
    names = ["conv_in.weight", "conv_out.bias"]
    with torch.no_grad():
        for name in names:
            changed.unet.get_parameter(name).mul_(1.5)
    change = original.change(changed, ("denoiser.*",), "x")
    assert list(change.tensors) == [f"unet.{name}" for name in changed.unet.state_dict() if name in names]
    before = {name: value.double() for name, value in model.unet.state_dict().items()}
    moved = sum(float((0.5 * before[name]).square().sum()) for name in names)
    whole = sum(float(value.square().sum()) for value in before.values())
    assert change.relative == pytest.approx((moved / whole) ** 0.5, rel=1e-6)
    assert original.change(changed, ("denoiser.*",), "x").relative == change.relative


def test_a_value_that_is_none_counts_as_changed(model: DiffusionModel) -> None:
    original = Original(model)
    changed = original.fresh()
    changed.vae.decoder.conv_out.bias.data[0] = float("nan")
    assert list(original.change(changed, ("vae.*",), "x").tensors) == ["vae.decoder.conv_out.bias"]


def test_matrices_that_were_added_have_no_share_in_how_far(model: DiffusionModel) -> None:
    original = Original(model)
    changed = original.copy(["unet"])
    changed.unet.add_adapter(lora_config(model.family, 2), adapter_name="probe")
    change = original.change(changed, ("denoiser.*.lora_*",), "x")
    assert change.tensors and all(".lora_" in name for name in change.tensors) and change.relative == 0
    with torch.no_grad():
        changed.unet.conv_in.weight[0, 0, 0, 0] += 1
    with pytest.raises(PluginError, match=r"x changed unet\.conv_in\.weight"):
        original.change(changed, ("denoiser.*.lora_*",), "x")


def test_a_digest_is_the_same_whoever_shares_what(model: DiffusionModel) -> None:
    original = Original(model)
    shared, own = original.copy(["unet"]), original.fresh()
    whole = digest_of_arm(model)
    assert digest_of_arm(shared, original) == digest_of_arm(own, original) == digest_of_arm(own) == whole
    for changed in (shared, own):
        with torch.no_grad():
            changed.unet.conv_in.weight[0, 0, 0, 0] = 7.0
        assert digest_of_arm(changed, original) == digest_of_arm(changed) != whole
    assert digest_of_arm(shared, original) == digest_of_arm(own, original)
    own.vae.decoder.conv_out.bias.data[0] = 7.0
    assert digest_of_arm(own, original) == digest_of_arm(own) != digest_of_arm(shared, original)
