"""The metrics against other people's implementations, and their intervals against what they promise."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from auditor._audit.run.measuring import bootstrap
from auditor._stats.binomial import lower_bound
from auditor.builtins.metrics.distances import frechet_distance, kernel_distance
from auditor.errors import PluginError, PolicyError, UsageError
from auditor.plugin._loader import make_plugin
from auditor.plugin.contracts import ImageOutcome
from tests.conftest import short_policy


class _Pixels(nn.Module):
    """Ten numbers an image, for torchmetrics to take for Inception's."""

    num_features = 10

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :10].double()


@pytest.mark.parametrize(("one", "two"), [(40, 40), (200, 150), (12, 300)])
def test_frechet_is_that_of_torchmetrics(one: int, two: int) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    generator = torch.Generator().manual_seed(one)
    real = torch.randint(0, 256, (two, 3, 4, 4), generator=generator, dtype=torch.uint8)
    drawn = torch.randint(0, 200, (one, 3, 4, 4), generator=generator, dtype=torch.uint8)
    theirs = FrechetInceptionDistance(feature=_Pixels(), input_img_size=(3, 4, 4)).set_dtype(torch.float64)
    theirs.update(real, real=True)
    theirs.update(drawn, real=False)
    ours = frechet_distance(_Pixels()(drawn).numpy(), _Pixels()(real).numpy())
    assert ours == pytest.approx(float(theirs.compute()), rel=1e-6)


def test_frechet_with_fewer_images_than_features_is_the_formula() -> None:
    """Against the covariances and scipy's matrix root."""
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(8, 20)), rng.normal(1.0, 2.0, size=(9, 20))
    covariances = np.cov(one, rowvar=False), np.cov(two, rowvar=False)
    eigenvalues = np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(min=0)
    expected = (
        np.square(one.mean(0) - two.mean(0)).sum()
        + sum(map(np.trace, covariances))
        - 2 * np.sqrt(eigenvalues).sum()
    )
    assert frechet_distance(one, two) == pytest.approx(float(expected), rel=1e-4)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_kernel_distance_is_that_of_torchmetrics_less_its_partners() -> None:
    """torchmetrics takes both samples for independent; pairs of one prompt and noise are not, so a row
    does not meet its partner here."""
    from torchmetrics.image.kid import poly_mmd

    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(30, 10)), rng.normal(0.5, 1.0, size=(30, 10))
    theirs = float(poly_mmd(torch.from_numpy(one), torch.from_numpy(two), degree=3, gamma=None, coef=1.0))
    cross = (one @ two.T / 10 + 1) ** 3
    apart = (cross.sum() - np.trace(cross)) / (30 * 29)
    assert kernel_distance(one, two) == pytest.approx(theirs + 2 * cross.mean() - 2 * apart, rel=1e-9)


def test_kernel_distance_of_the_same_images_is_zero() -> None:
    one = np.random.default_rng(0).normal(size=(12, 5))
    assert kernel_distance(one, one) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="no pairs"):
        kernel_distance(one, one[:5])


def test_kernel_distance_of_one_law_is_zero_on_average() -> None:
    rng = np.random.default_rng(0)
    drawn = [kernel_distance(rng.normal(size=(20, 5)), rng.normal(size=(20, 5))) for _ in range(300)]
    assert abs(np.mean(drawn)) < 3 * np.std(drawn) / 300**0.5


@pytest.mark.parametrize("name", ["clip-frechet", "clip-kernel"])
def test_distances_grow_with_damage_and_their_interval_holds_them(name: str) -> None:
    from auditor.microworld.render import draw_prompt
    from auditor.policy.concepts.micro import PEOPLE

    rng = np.random.default_rng(0)
    pictures = [
        draw_prompt(thing, "a portrait of {}", rng).convert("RGB").resize((32, 32))
        for thing in list(PEOPLE)[:12]
        for _ in (0, 1)
    ]
    images = torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures])
    metric = make_plugin("metrics", name, {"model": "micro"})
    prompts = [f"a portrait of {thing}" for thing in list(PEOPLE)[:12] for _ in (0, 1)]
    rows = [metric.features(each, prompts) for each in (images, 255 - images, (images // 64) * 64)]
    inverted, coarse, same = (metric.value(rows[at], rows[0]) for at in (1, 2, 0))
    assert inverted > coarse > same
    value, lower, upper = bootstrap(metric, rows[2], rows[0], prompts)
    assert lower <= value <= upper and upper > lower


def test_fid_reads_weights_of_the_user_and_no_pickle(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return canary.write_text, ("opened",)

    bad = tmp_path / "evil.pth"
    bad.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UsageError, match="not opened"):
        _fid(bad).features(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), ["a", "b"])
    assert not canary.exists()
    with pytest.raises(UsageError, match="sha256"):
        make_plugin("metrics", "fid", {"weights": str(bad), "sha256": "0" * 64}).features(
            torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ["a"]
        )
    torch.manual_seed(0)
    state = _random_inception()
    good = tmp_path / "inception.pth"
    torch.save(state, good)
    metric = _fid(good)
    images = torch.randint(
        0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    rows = metric.features(images, ["a"] * 4)
    assert rows.shape == (4, 2048) and np.isfinite(rows).all()
    assert metric.value(rows, rows) == pytest.approx(0, abs=1e-6)


def _fid(path: Path) -> object:
    return make_plugin(
        "metrics", "fid", {"weights": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    )


def _random_inception() -> dict[str, Tensor]:
    """A state dict of torch-fidelity's network with random weights: it is built as it builds itself,
    without its download."""
    from unittest import mock

    from torch_fidelity import feature_extractor_inceptionv3 as module

    found: dict[str, Tensor] = {}
    with (
        mock.patch.object(
            module.FeatureExtractorInceptionV3,
            "load_state_dict",
            lambda self, state: found.update(self.state_dict()),
        ),
        mock.patch.object(module, "load_state_dict_from_url", lambda *args, **kwargs: {}),
    ):
        module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    return found


OUTCOMES = [ImageOutcome("erased", "x", hit) for hit in (True, False, False, False)] + [
    ImageOutcome("retained", "y", hit) for hit in (True, True, True, False)
]


def test_harmonic_mean_is_maces() -> None:
    """H_c = 2 / (1/(1 - Acc_e) + 1/Acc_s), and H_o with generality."""
    metric = make_plugin("metrics", "harmonic-mean", {})
    rows = metric.features(torch.zeros(8, 3, 4, 4, dtype=torch.uint8), [""] * 8, OUTCOMES)
    assert metric.value(rows, rows) == pytest.approx(2 / (1 / 0.75 + 1 / 0.75))
    more = [*OUTCOMES, ImageOutcome("synonym", "x", True), ImageOutcome("synonym", "x", False)]
    rows = metric.features(torch.zeros(10, 3, 4, 4, dtype=torch.uint8), [""] * 10, more)
    assert metric.value(rows, rows) == pytest.approx(3 / (1 / 0.75 + 1 / 0.75 + 1 / 0.5))


def test_a_model_that_shows_everything_has_no_harmonic_mean() -> None:
    metric = make_plugin("metrics", "harmonic-mean", {})
    rows = metric.features(
        torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        [""] * 2,
        [ImageOutcome("erased", "x", True), ImageOutcome("retained", "y", True)],
    )
    assert metric.value(rows, rows) == 0


@pytest.mark.parametrize("name", ["harmonic-mean", "retained-accuracy"])
def test_what_was_not_drawn_is_no_zero(name: str) -> None:
    metric = make_plugin("metrics", name, {})
    rows = metric.features(
        torch.zeros(1, 3, 4, 4, dtype=torch.uint8), [""], [ImageOutcome("erased", "x", False)]
    )
    with pytest.raises(PluginError, match="no image of what is retained"):
        bootstrap(metric, rows, rows, ["x"], ["erased"])


def test_retained_accuracy_and_its_interval() -> None:
    metric = make_plugin("metrics", "retained-accuracy", {})
    rows = metric.features(torch.zeros(8, 3, 4, 4, dtype=torch.uint8), [""] * 8, OUTCOMES)
    prompts = [f"{outcome.role} {number}" for number, outcome in enumerate(OUTCOMES)]
    value, lower, upper = bootstrap(metric, rows, rows, prompts, [outcome.role for outcome in OUTCOMES])
    assert value == 0.75 and lower < 0.75 < upper


def test_the_bootstrap_of_a_mean_is_as_wide_as_its_standard_error() -> None:
    metric = make_plugin("metrics", "clip-score", {"model": "micro"})
    rows = np.random.default_rng(0).normal(50, 10, size=(200, 1))
    value, lower, upper = bootstrap(metric, rows, rows, [str(number) for number in range(200)])
    assert value == pytest.approx(rows.mean()) and upper - lower == pytest.approx(
        2 * 1.96 * rows.std() / 200**0.5, rel=0.1
    )


def test_a_share_that_is_the_same_in_all_images_is_not_certain() -> None:
    """35 right of 35: Clopper and Pearson leave 10 %, and so does the metric, however often equal rows are
    drawn again."""
    metric = make_plugin("metrics", "retained-accuracy", {})
    said = [ImageOutcome("retained", "a", True)] * 35
    rows = metric.features(torch.zeros(35, 3, 8, 8, dtype=torch.uint8), ["a"] * 35, said)
    value, lower, upper = bootstrap(metric, rows, rows, ["a"] * 35, ["retained"] * 35)
    assert (value, upper) == (1.0, 1.0) and lower == pytest.approx(
        lower_bound(35, 35, 0.025)
    ) == pytest.approx(0.9, abs=0.01)


def test_a_metric_that_gives_no_number_is_an_error() -> None:
    metric = make_plugin("metrics", "clip-score", {"model": "micro"})
    with pytest.raises(PluginError, match="not finite"):
        bootstrap(metric, np.full((6, 1), np.nan), np.zeros((6, 1)), list("abcdef"))


def test_an_audit_refuses_metrics_that_are_about_outcomes() -> None:
    from auditor.plugin.instruments import make_instruments

    with pytest.raises(PolicyError, match="studies measure it"):
        make_instruments(short_policy(metrics=[{"use": "harmonic-mean"}]))
