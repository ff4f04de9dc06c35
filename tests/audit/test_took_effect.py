"""The control "took effect" of a probe that trains: what is measured, and what is more than nothing."""

from __future__ import annotations

import copy

import pytest
import torch

from auditor._audit.plan import Plan
from auditor._audit.run.probing import held_out_losses, trained_losses
from auditor._audit.run.training_set import TrainingSet
from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._diffusion.denoising import training_draw
from auditor._diffusion.finetune import Examples, Training, finetune
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.sampling import draw
from auditor._journal.lines import ArmLine
from auditor.policy import Sampler
from auditor.report import Control, Outcome
from tests.conftest import erased_well, journal_of, verdict_of

SEED = 11


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return load_model(open_checkpoint("micro"))


@pytest.fixture(scope="module")
def training(model: DiffusionModel) -> TrainingSet:
    """Ships, dogs and lamps under one another's names: something that there is to learn."""
    names = ["the ship", "a dog", "a lamp", "the moon"]
    sampler = Sampler(scheduler="dpm-solver++", steps=6, guidance=4.0, size=32)
    images, _ = draw(model, [f"a photo of {name}" for name in names * 4], range(16), sampler)
    captions = tuple(f"a photo of {name}" for name in (names[1:] + names[:1]) * 4)
    return TrainingSet(images[:12], captions[:12], images[12:], captions[12:])


def trained(model: DiffusionModel, training: TrainingSet, rate: float) -> ArmLine:
    """What the journal says of a full fine-tune of 15 steps."""
    own = copy.deepcopy(model)
    pictures, held_out = trained_losses(own, training, SEED), held_out_losses(own, training, SEED)
    before = {"fit_trained_before": pictures(own), "fit_before": held_out(own)}
    examples = Examples.of(own, training.images, training.captions)
    for _ in finetune(own, examples, Training("full", rate, 6), (15,), SEED):
        after = {"fit_trained": pictures(own), "fit": held_out(own)}
    return ArmLine(arm="in-domain-lora", seconds=0.0, weights="w", **before, **after)


def control(plan: Plan, **measured: tuple[float, ...]) -> tuple[Control, Outcome]:
    """The control of an audit that would pass, with these losses in its journal."""
    lines = [
        line.model_copy(update=measured) if isinstance(line, ArmLine) else line
        for line in journal_of(plan, erased_well)
    ]
    report = verdict_of(plan, lines)
    (own,) = [each for each in report.controls if each.name == "potent"]
    return own, report.verdict.outcome


@pytest.mark.parametrize(
    ("rate", "passes"), [(3e-4, True), (1e-9, False), (3e-2, False)], ids=["learns", "nothing", "diverges"]
)
def test_an_update_that_learns_took_and_one_that_does_nothing_or_diverges_did_not(
    plan: Plan, model: DiffusionModel, training: TrainingSet, rate: float, passes: bool
) -> None:
    line = trained(model, training, rate)
    own, outcome = control(
        plan,
        fit=line.fit,
        fit_before=line.fit_before,
        fit_trained=line.fit_trained,
        fit_trained_before=line.fit_trained_before,
    )
    assert own.passed is passes and (outcome is Outcome.PASS) is passes, own.sentence
    if rate == 1e-9:
        assert own.value is not None and abs(own.value) < 1e-3


def test_what_decides_is_the_loss_on_training_pictures_and_the_other_stands_beside_it(plan: Plan) -> None:
    before, down, up = (1.0, 1.02, 1.01), (0.5, 0.52, 0.51), (1.1, 1.2, 1.1)
    own, outcome = control(plan, fit_trained=down, fit_trained_before=before, fit=up, fit_before=before)
    assert own.passed and own.n == 3 and outcome is Outcome.PASS
    assert "3 of the probe's training pictures fell by 49.5%" in own.sentence
    assert "on 3 held-out captions it rose by 12.2%" in own.sentence
    own, outcome = control(plan, fit_trained=up, fit_trained_before=before, fit=down, fit_before=before)
    assert not own.passed and outcome is Outcome.INCONCLUSIVE
    own, _ = control(plan, fit_trained=down, fit_trained_before=before, fit=(), fit_before=())
    assert own.passed and "on held-out captions it was not measured" in own.sentence


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((), ()),
        ((1.0, 1.02), ()),
        ((), (0.5, 0.5)),
        ((1.0,), (0.5,)),
        ((1.0, 1.0), (0.5, 0.5, 0.5)),
        ((1.0, 1.0), (0.5, float("nan"))),
        ((1.0, float("inf")), (0.5, 0.5)),
        ((0.0, 0.0), (0.0, 0.0)),
        ((1.0, 1.0, 1.0), (0.2, 0.3, 2.2)),  # on average it fell, by chance
        ((1.0, 1.0, 1.0), (0.99, 0.991, 0.989)),  # it fell for certain, by too little
    ],
)
def test_what_was_not_measured_or_is_no_fall_is_no_pass(
    plan: Plan, before: tuple[float, ...], after: tuple[float, ...]
) -> None:
    """Held-out losses that fell change nothing about it."""
    held_out = {"fit_before": (1.0, 1.02, 1.01), "fit": (0.5, 0.52, 0.51)}
    own, outcome = control(plan, fit_trained_before=before, fit_trained=after, **held_out)
    assert own.passed is False and outcome is Outcome.INCONCLUSIVE


def test_a_picture_counts_once_and_at_most_forty_do(model: DiffusionModel, training: TrainingSet) -> None:
    def measured(rows: list[int]) -> int:
        own = TrainingSet(
            training.images[rows], tuple(training.captions[row] for row in rows), training.images[:0], ()
        )
        return len(trained_losses(model, own, SEED)(model))

    assert measured([0, 1, 2]) == 3
    assert measured([0, 1, 0, 0, 1]) == 2
    assert measured([0] * 30) == 1
    assert measured([]) == 0
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (47, 3, 32, 32), generator=random, dtype=torch.uint8)
    many = TrainingSet(noise, ("x",) * 47, noise[:0], ())
    assert len(trained_losses(model, many, SEED)(model)) == 40


def test_a_model_of_nan_is_measured_as_nothing(model: DiffusionModel, training: TrainingSet) -> None:
    own = copy.deepcopy(model)
    losses = trained_losses(own, training, SEED)
    assert len(losses(own)) == 12
    next(own.denoiser.parameters()).data.fill_(float("nan"))
    assert losses(own) == ()


def test_no_training_step_has_the_noise_that_it_is_measured_with(
    monkeypatch: pytest.MonkeyPatch, model: DiffusionModel, training: TrainingSet
) -> None:
    seeds: list[int] = []
    plain = torch.Generator.manual_seed

    def seen(generator: torch.Generator, seed: int) -> torch.Generator:
        seeds.append(seed)
        return plain(generator, seed)

    class Watched(torch.Generator):
        manual_seed = seen

    monkeypatch.setattr(torch, "Generator", Watched)
    losses = trained_losses(model, training, SEED)
    losses(model)
    measured = set(seeds)
    seeds.clear()
    examples = Examples.of(model, training.images, training.captions)
    for step in range(1, 301):
        training_draw(model.noising(), examples.means, examples.deviations, 1, SEED, step)
    assert measured and len(set(seeds)) == 300 and not measured & set(seeds)
