"""A LoRA of the base's in the erased denoiser: what it adds, what it is trained on, what it leaves alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import auditor
from auditor._audit.cells import Seeds
from auditor._audit.plan import make_plan
from auditor._audit.run.probing import of_the_base
from auditor._audit.run.training_set import ask_for_training_set
from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._diffusion.finetune import Examples, Training, finetune
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.original import Original
from auditor._diffusion.sampling import draw
from auditor.builtins.probes.base_lora import BaseLora
from auditor.errors import PluginError, PolicyError, UsageError
from auditor.plugin.contracts import Update
from auditor.plugin.instruments import make_probes
from auditor.policy import Sampler
from tests.conftest import SMALL, policy_file, short_policy
from tests.faults.runs import lines_of

pytestmark = pytest.mark.usefixtures("nano")

SEED, DOSES = 5, (3, 9)
CAPTIONS = ("a photo of the ship", "a photo of a dog") * 3
TRAIN = {"candidates": "micro-people", "names": 2, "images_per_prompt": 1, "learning_rate": 1e-2, "batch": 2}
TARGETS = tuple(f".{target}.weight" for target in ("to_q", "to_k", "to_v", "to_out.0"))

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def base(nano: None) -> DiffusionModel:
    return load_model(open_checkpoint("micro"))


@pytest.fixture(scope="module")
def images(base: DiffusionModel) -> Tensor:
    sampler = Sampler(scheduler="dpm-solver++", steps=5, guidance=4.0, size=32)
    return draw(base, CAPTIONS, range(len(CAPTIONS)), sampler)[0]


@pytest.fixture
def model(erased: Path, base: DiffusionModel) -> DiffusionModel:
    """The erased model, yours to change."""
    return Original(load_model(open_checkpoint(str(erased)))).fresh()


def probe(strength: float = 1.0) -> BaseLora:
    return BaseLora(BaseLora.Options.model_validate(TRAIN | {"strength": strength}))


def states(
    model: DiffusionModel, base: DiffusionModel, images: Tensor, own: BaseLora, **changes: Any
) -> dict[int, Weights]:
    """The denoiser's weights at every dose of an update of ``model``."""
    update = Update(model, images, CAPTIONS, "lora", DOSES, SEED, **of_the_base(own, base))
    return {dose: weights_of(model.denoiser) for dose in own.update(replace(update, **changes))}


def weights_of(module: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def products(base: DiffusionModel, images: Tensor) -> dict[int, Weights]:
    """By dose, B A of the ordinary LoRA fine-tune over the base (alpha is its rank), by the weight's name."""
    trained, found = Original(base).fresh(), {}
    examples = Examples.of(trained, images, CAPTIONS)
    for dose in finetune(trained, examples, Training("lora", 1e-2, 2), DOSES, SEED):
        state = trained.denoiser.state_dict()
        downs = [name for name in state if ".lora_A." in name]
        found[dose] = {
            name.replace(".lora_A.probe", ""): state[name.replace(".lora_A.", ".lora_B.")] @ state[name]
            for name in downs
        }
    return found


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> set[str]:
    assert one.keys() == other.keys()
    return {name for name in one if not torch.equal(one[name], other[name])}


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_it_adds_the_product_of_the_ordinary_fine_tune_over_the_base(
    model: DiffusionModel, base: DiffusionModel, images: Tensor, strength: float
) -> None:
    before, untouched = weights_of(model.denoiser), weights_of(base.denoiser)
    found, wanted = states(model, base, images, probe(strength)), products(base, images)
    for dose in DOSES:
        assert differing(before, found[dose]) == wanted[dose].keys()
        assert all(name.endswith(TARGETS) for name in wanted[dose])
        for name, product in wanted[dose].items():
            assert torch.allclose(found[dose][name], before[name] + strength * product, rtol=0, atol=1e-6)
    assert max(float(product.abs().max()) for product in wanted[DOSES[-1]].values()) > 1e-3
    assert not differing(untouched, weights_of(base.denoiser)), "the audit's own base"


def test_its_no_op_control_changes_no_bit(
    model: DiffusionModel, base: DiffusionModel, images: Tensor
) -> None:
    weight = next(value for name, value in model.denoiser.named_parameters() if name.endswith(TARGETS))
    with torch.no_grad():
        weight[0] = -0.0  # adding nothing to it would turn its sign
    before = weights_of(model.denoiser)
    for found in states(model, base, images, probe(), sham=True, doses=(2,)).values():
        assert not differing(before, found)
        assert all(torch.equal(before[name].signbit(), found[name].signbit()) for name in before)


def test_the_checkpoints_text_encoder_autoencoder_and_schedule_have_no_part_in_the_training(
    model: DiffusionModel, base: DiffusionModel, images: Tensor
) -> None:
    wanted = states(copy.deepcopy(model), base, images, probe())
    model.scheduler_config = {**model.scheduler_config, "beta_end": 0.5}
    with torch.no_grad():
        for part in (model.text_encoder, model.vae):
            for weight in part.parameters():
                weight.mul_(1.1)
    model.forget_text_states()
    found = states(model, base, images, probe())
    assert not any(differing(wanted[dose], found[dose]) for dose in DOSES)


def test_a_denoiser_of_another_form_is_refused(
    model: DiffusionModel, base: DiffusionModel, images: Tensor
) -> None:
    name = next(name for name, _ in model.denoiser.named_parameters() if name.endswith(".to_q.weight"))
    layer = model.denoiser.get_submodule(name.removesuffix(".weight"))
    layer.weight = nn.Parameter(layer.weight[:-1].detach())
    with pytest.raises(UsageError, match="has no place in the checkpoint's denoiser; give the base"):
        states(model, base, images, probe())


def test_what_is_used_of_the_base_is_copied_by_name_or_role(base: DiffusionModel) -> None:
    class Reads(BaseLora):
        """One part by its name."""

        uses_base = ("vae",)

    assert of_the_base(probe(), base)["base"].keys() == {"unet", "text_encoder", "vae"}
    found = of_the_base(Reads(probe().options), base)
    assert found["base"].keys() == {"vae"} and found["base"]["vae"] is not base.vae
    assert found["base_schedule"] == base.scheduler_config
    Reads.uses_base = ("unets",)
    with pytest.raises(PluginError, match="part 'unets'; a base has unet, text_encoder, vae"):
        of_the_base(Reads(probe().options), base)
    Reads.uses_base = ()
    assert of_the_base(Reads(probe().options), base) == {"base": {}, "base_schedule": {}}


@pytest.mark.parametrize("own", [{}, {"folder": "pictures"}], ids=["drawn", "folder"])
def test_without_a_base_it_is_refused_before_anything_is_drawn(own: dict[str, str]) -> None:
    policy = short_policy(probes=[{"use": "base-lora", "options": TRAIN | own}])
    (made,) = make_probes(policy)
    with pytest.raises(UsageError, match=r"The probe base-lora needs the base; give one \(--base\)"):
        ask_for_training_set(made, "base-lora-lora", policy, Seeds("a", "b"), has_base=False)
    with pytest.raises(UsageError, match="needs the base"):
        of_the_base(made, None)


def test_without_the_bases_parts_it_trains_nothing(model: DiffusionModel, images: Tensor) -> None:
    """Its update alone, as another probe may call it."""
    with pytest.raises(UsageError, match="needs the base"):
        next(probe().update(Update(model, images, CAPTIONS, "lora", DOSES, SEED)))


@pytest.mark.parametrize("changes", [{"strength": 0}, {"strength": 2.5}, {"strength": float("nan")}])
def test_a_strength_out_of_range_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(PolicyError, match="strength"):
        make_plan(short_policy(probes=[{"use": "base-lora", "options": TRAIN | changes}]))


def test_two_strengths_are_two_probes_and_full_fine_tuning_is_refused() -> None:
    uses = [{"use": "base-lora", "options": TRAIN | {"strength": value}} for value in (1.0, 0.5)]
    assert make_plan(short_policy(probes=uses)).probe_names == ("base-lora-lora", "base-lora-0.5-lora")
    with pytest.raises(PolicyError, match="cannot train by method: full; it can by lora"):
        make_plan(short_policy(probes=[uses[0] | {"method": "full"}]))


def test_an_audit_with_it_trains_it_alone_and_checks_its_controls(erased: Path, tmp_path: Path) -> None:
    options = TRAIN | {"prompts": "paper-people", "learning_rate": 1e-3, "batch": 4}
    uses = [{"use": "base-lora", "doses": [2, 40], "options": options}]
    policy = policy_file(tmp_path, budget=SMALL, probes=uses)
    report = auditor.audit(str(erased), policy, tmp_path / "run", cache=tmp_path / "cache")
    assert not report.ledger.errors
    own = {(each.name, each.arm): each for each in report.controls if each.arm.startswith("base-lora")}
    assert own["sham", "base-lora-lora"].passed and own["sham", "base-lora-lora"].n
    last = own["potent", "base-lora-lora.step40"]
    assert last.passed and last.value is not None and last.value > 0.02, last.sentence
    arms = {line.arm: line for line in lines_of(tmp_path / "run") if getattr(line, "fit_trained", ())}
    changes = [arms[f"base-lora-lora.step{dose}"].change for dose in (2, 40)]
    assert 0 < changes[0] < changes[1]
    assert all(line.company == () for line in arms.values())
    again = auditor.judge_folder(tmp_path / "run")
    assert again.verdict == report.verdict
