"""A family in one file: drawn, trained, erased, compared, kept and rebuilt by code that never heard of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from auditor._audit.run_folder.arms import ArmStore, digest_of_arm, rebuilt
from auditor._diffusion.drawing import draw_function, draw_in_batches
from auditor._diffusion.finetune import Examples, Training, denoising_losses, finetune
from auditor._diffusion.geometry import weight_distances
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.original import Original
from auditor._diffusion.sampling import draw
from auditor.errors import PluginError, UsageError
from auditor.plugin import Erasure, Update, make_plugin
from auditor.policy import Concept, Sampler
from tests.families.toy import toy_model

SAMPLER = Sampler(steps=4, guidance=2.0, size=16)
PROMPTS = ("a photo of a ship", "a red castle")


@pytest.fixture
def model() -> DiffusionModel:
    return toy_model()


def examples(model: DiffusionModel) -> Examples:
    ramp = torch.linspace(0, 255, 16).to(torch.uint8).expand(4, 3, 16, 16)
    return Examples.of(model, ramp, ["a ramp"] * 4)


def test_it_draws_and_what_an_image_is_batched_with_does_not_matter(model: DiffusionModel) -> None:
    images, finite = draw(model, PROMPTS, (1, 2), SAMPLER)
    assert images.shape == (2, 3, 16, 16) and bool(finite.all())
    assert not torch.equal(images[0], images[1])
    alone = list(draw_in_batches(draw_function(model, SAMPLER), PROMPTS, (1, 2), 1))
    assert all(
        (each[0].int() - image.int()).abs().max() <= 1
        for (_, each, _), image in zip(alone, images, strict=True)
    )


@pytest.mark.parametrize("method", ["lora", "full"])
def test_it_learns_and_a_lora_goes_away_again(model: DiffusionModel, method: str) -> None:
    before = digest_of_arm(model)
    shown = examples(model)
    untrained = float(denoising_losses(model, shown, 0).mean())
    training = Training(method, 1e-2, checkpointing=False)
    for _ in finetune(model, shown, training, [30], 1):
        assert float(denoising_losses(model, shown, 0).mean()) < 0.9 * untrained
    assert (digest_of_arm(model) == before) == (method == "lora")


def test_a_probe_trains_it_and_the_arm_is_kept_and_rebuilt(model: DiffusionModel, tmp_path: Path) -> None:
    original, store = Original(model), ArmStore(tmp_path)
    probe = make_plugin("probes", "in-domain", {"candidates": ["x"], "learning_rate": 1e-2})
    changed = original.fresh()
    images = torch.linspace(0, 255, 16).to(torch.uint8).repeat(4, 3, 16, 1)
    update = Update(changed, images, ("a ramp",) * 4, "lora", (3,), 5)
    for _ in probe.update(update):
        change = original.change(changed, probe.changes("lora"), "the probe")
        digest = digest_of_arm(changed)
        assert all(name.startswith("transformer.") for name in change.tensors)
        assert store.keep(changed, change.tensors, digest)
        again = rebuilt(original, changed, change, digest)
        here = draw(changed, PROMPTS, (1, 2), SAMPLER)[0]
        assert torch.equal(draw(again, PROMPTS, (1, 2), SAMPLER)[0], here)
        assert not torch.equal(draw(model, PROMPTS, (1, 2), SAMPLER)[0], here)
    restored = original.fresh()
    assert store.restore(restored, digest) and torch.equal(draw(restored, PROMPTS, (1, 2), SAMPLER)[0], here)


def test_what_may_not_change_is_named(model: DiffusionModel) -> None:
    original = Original(model)
    changed = original.fresh()
    changed.words.table.weight.data += 1
    with pytest.raises(PluginError, match=r"changed words\.table\.weight; it says that it changes denoiser"):
        original.change(changed, ("denoiser.*",), "The probe")
    changed = original.fresh()
    changed.pixels.scale.data += 1
    with pytest.raises(PluginError, match=r"changed pixels\.scale"):
        original.change(changed, ("*",), "The probe")
    assert original.change(changed, ("pixels.*",), "The probe").tensors.keys() == {"pixels.scale"}


def test_its_text_part_is_read_again_where_it_changed(model: DiffusionModel) -> None:
    original = Original(model)
    before = model.condition(PROMPTS).rows["words"]
    changed = original.fresh()
    changed.words.table.weight.data += 1
    original.change(changed, ("words.*",), "The probe")
    assert torch.equal(changed.condition(PROMPTS).rows["words"], before + 1)


def test_esd_steers_it_away_and_mace_says_that_it_cannot(model: DiffusionModel) -> None:
    concept = Concept(name="ship", domain="objects", mapping="sky", prompts=("a photo of {}",))
    original = Original(model)
    esd = make_plugin("erasers", "esd", {"variant": "x", "steps": 3, "learning_rate": 1e-3, "size": 16})
    erased = original.fresh()
    esd.erase(Erasure(erased, (concept,), (), 1))
    change = original.change(erased, ("denoiser.*",), "esd")
    assert {name.split(".")[1] for name in change.tensors} == {"to_k", "to_v"}
    distances = weight_distances(model, erased)
    assert distances["transformer"][0] > 0 and distances["to_q"][0] == 0 < distances["to_k"][0]
    with pytest.raises(UsageError, match="has none"):
        make_plugin("erasers", "mace", {}).plan(Erasure(original.fresh(), (concept,), (), 1))


def test_a_part_that_is_assigned_is_the_models_part_and_no_other_models(model: DiffusionModel) -> None:
    original = Original(model)
    changed = original.fresh()
    changed.words = toy_model(1).words
    assert changed.parts["words"] is changed.words is changed.modules["words"]
    assert not torch.equal(changed.words.table.weight, model.words.table.weight)
    with pytest.raises(PluginError, match=r"changed words\.table\.weight"):
        original.change(changed, ("denoiser.*",), "The probe")
    other = replace(changed, digest="other")
    other.words = model.words
    assert changed.words is not model.words
