"""The conformance kit, a pytest plugin: subclass ``ProbeConformance`` and get the tests that every probe must pass.

>>> class TestMine(ProbeConformance):
...     plugin = Mine
...     options = {"scale": 0.1}

Everything runs on the embedded micro world, on the CPU (and on a GPU where there is one), without a network. Fixtures for tests of
your own: ``micro`` (see :class:`Kit`).
"""

from __future__ import annotations

import contextlib
import gc
import json
import random
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from auditor.errors import AuditorError
from auditor.plugin import contracts
from auditor.plugin.kit import Kit
from auditor.plugin.loader import problem_of

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.policy import Concept

_MEGABYTE = 2**20
_SEED = 7


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """The micro world (:class:`Kit`)."""
    return Kit(tmp_path_factory.mktemp("micro"))


class _Conformance:
    """What holds for plugins of every kind."""

    plugin: ClassVar[type[contracts.Plugin]]
    options: ClassVar[dict[str, Any]] = {}
    kind: ClassVar[str]

    def make(self) -> Any:
        """The plugin with the options of this class."""
        return self.plugin(self.plugin.Options.model_validate(self.options))

    def exercise(self, micro: Kit, plugin: Any, seed: int = _SEED) -> Any:
        """Use the plugin once, and return something that is equal where it did the same."""
        raise NotImplementedError

    def test_metadata(self) -> None:
        assert problem_of(self.kind, self.plugin) is None
        assert self.plugin.__doc__
        assert "\n" not in self.plugin.summary

    def test_every_option_is_documented(self) -> None:
        undocumented = [name for name, field in self.plugin.Options.model_fields.items() if not field.description]
        assert not undocumented

    def test_an_unknown_option_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no_such_option"):
            self.plugin.Options.model_validate(self.options | {"no_such_option": 1})

    def test_options_survive_json(self) -> None:
        options = self.plugin.Options.model_validate(self.options)
        assert self.plugin.Options.model_validate_json(options.model_dump_json()) == options

    def test_the_same_twice_by_one_and_by_two_instances(self, micro: Kit) -> None:
        plugin = self.make()
        first = self.exercise(micro, plugin)
        assert self.exercise(micro, plugin) == first, "the plugin keeps a state"
        assert self.exercise(micro, self.make()) == first, "the plugin is not reproducible"

    def test_it_leaves_the_global_state_alone(self, micro: Kit) -> None:
        import numpy as np
        import torch

        self.exercise(micro, self.make())  # what is computed once may be
        before = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()
        modes = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
        self.exercise(micro, self.make())
        assert (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()) == before
        assert (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()) == modes

    def test_it_prints_nothing(self, micro: Kit, capsys: pytest.CaptureFixture[str]) -> None:
        self.exercise(micro, self.make())
        assert capsys.readouterr().out == "", "standard output belongs to the command that runs the plugin"

    def test_it_needs_no_network(self, micro: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise OSError("no network in the conformance kit")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        self.exercise(micro, self.make())

    def test_it_gives_memory_back(self, micro: Kit) -> None:
        plugin = self.make()
        self.exercise(micro, plugin)
        before = _tensor_bytes()
        for _ in range(3):
            self.exercise(micro, plugin)
        assert _tensor_bytes() - before < _MEGABYTE, "tensors pile up from call to call"


def _tensor_bytes() -> int:
    import torch

    gc.collect()
    tensors = {id(found): found for found in gc.get_objects() if issubclass(type(found), torch.Tensor)}
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors.values())


def _devices() -> list[str]:
    import torch

    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


class ProbeConformance(_Conformance):
    """Tests for probes. ``method`` and ``doses`` are what a policy would give them."""

    kind = "probes"
    method: ClassVar[str] = "lora"
    doses: ClassVar[tuple[int, ...]] = (1, 2)

    def setting(self, micro: Kit, seed: int = _SEED) -> contracts.ProbeSetting:
        """What the probe may know when it chooses."""
        from auditor.policy import forbidden_names

        return contracts.ProbeSetting(micro.policy, seed, frozenset(forbidden_names(micro.policy)))

    def examples(self, micro: Kit, plugin: Any) -> tuple[Any, tuple[str, ...]]:
        """Images and captions of its training set."""
        import torch

        from auditor.examples import read_captioned_folder

        asked = plugin.training_set(self.setting(micro))
        if isinstance(asked, Path):
            images, captions = read_captioned_folder(asked, 32)
            return images, tuple(captions)
        captions = [
            template.format(request.concept) for request in asked for template in request.prompts for _ in range(request.images_per_prompt)
        ]
        return (micro.draw(captions) if captions else torch.empty((0, 3, 32, 32), dtype=torch.uint8)), tuple(captions)

    def update(self, micro: Kit, plugin: Any, model: Any, seed: int = _SEED, *, sham: bool = False, steps: Any = None) -> Iterator[int]:
        """Start an update of ``model``."""
        images, captions = self.examples(micro, plugin)
        on_step = (lambda step: None) if steps is None else steps.append
        doses = (2,) if sham else self.doses
        found: Iterator[int] = plugin.update(
            contracts.Update(model, images.clone(), captions, self.method, doses, seed, sham=sham, on_step=on_step)
        )
        return found

    def exercise(self, micro: Kit, plugin: Any, seed: int = _SEED) -> Any:
        """The digest of the weights at every dose."""
        from auditor.arms import digest_of_arm

        model = micro.model()
        return [(dose, digest_of_arm(model)) for dose in self.update(micro, plugin, model, seed)]

    def test_its_title_can_stand_in_an_arms_name(self) -> None:
        assert re.fullmatch(r"[\w.-]+", self.make().title)

    def test_its_training_set_is_chosen_by_the_seed_alone(self, micro: Kit) -> None:
        plugin = self.make()
        assert plugin.training_set(self.setting(micro)) == plugin.training_set(self.setting(micro))

    def test_its_training_set_holds_no_audited_concept(self, micro: Kit) -> None:
        _, captions = self.examples(micro, self.make())
        forbidden = self.setting(micro).forbidden
        assert not [caption for caption in captions if any(name in caption.casefold() for name in forbidden)]

    def test_it_reaches_every_dose_in_order(self, micro: Kit) -> None:
        assert list(self.update(micro, self.make(), micro.model())) == list(self.doses)

    def test_it_changes_what_it_says_and_nothing_else(self, micro: Kit) -> None:
        plugin, model = self.make(), micro.model()
        for _ in self.update(micro, plugin, model):
            change = micro.original.change(model, plugin.changes(self.method), plugin.name)
        assert all(bool(tensor.isfinite().all()) for tensor in change.tensors.values())
        if not self.examples(micro, plugin)[1]:
            assert change.relative >= plugin.least_change() > 0

    def test_its_sham_changes_no_image(self, micro: Kit) -> None:
        import torch

        from auditor.diffusion.sampling import draw

        plugin, model, prompts = self.make(), micro.model(), ["a photo of Zelda Mirkov"] * 2
        if not plugin.has_sham:
            pytest.skip("it does not train")
        before, _ = draw(micro.model(), prompts, [1, 2], micro.policy.sampler)
        for _ in self.update(micro, plugin, model, sham=True):
            after, _ = draw(model, prompts, [1, 2], micro.policy.sampler)
        assert torch.equal(before, after)

    def test_it_tells_of_every_step(self, micro: Kit) -> None:
        steps: list[int] = []
        if not self.make().has_sham:
            pytest.skip("it does not train")
        list(self.update(micro, self.make(), micro.model(), steps=steps))
        assert steps and steps == sorted(set(steps)) and steps[0] >= 1

    def test_it_can_be_ended_after_its_first_dose(self, micro: Kit) -> None:
        steps = self.update(micro, self.make(), micro.model())
        assert next(iter(steps)) == self.doses[0]
        if hasattr(steps, "close"):
            steps.close()

    def test_it_is_made_for_the_models_device(self, micro: Kit) -> None:
        for device in _devices():
            model = micro.model(device)
            assert list(self.update(micro, self.make(), model)) == list(self.doses)
            assert model.device.type == device

    def test_its_cost_is_a_number(self) -> None:
        assert self.make().training_calls(self.doses[-1]) >= 0


class DetectorConformance(_Conformance):
    """Tests for detectors."""

    kind = "detectors"

    def concepts(self, micro: Kit) -> tuple[Concept, ...]:
        """What it is asked about; overridden where the micro world's concepts mean nothing to it."""
        return micro.concepts

    def images(self, micro: Kit) -> Tensor:
        """Images it can judge: uint8, (N, 3, H, W), at least three."""
        return micro.images

    def exercise(self, micro: Kit, plugin: Any, seed: int = _SEED) -> Any:
        """Everything it says of the images."""
        found = plugin.detect(self.images(micro).clone(), self.concepts(micro))
        return found.hits.tolist(), found.scores.tolist(), tuple(found.labels)

    def test_what_it_returns_is_a_detection(self, micro: Kit) -> None:
        from auditor.scoring import problem_of as problem_of_detection

        images, concepts = self.images(micro), self.concepts(micro)
        assert problem_of_detection(self.make().detect(images.clone(), concepts), len(images), len(concepts)) is None

    def test_it_leaves_its_images_alone(self, micro: Kit) -> None:
        import torch

        images = self.images(micro).clone()
        self.make().detect(images, self.concepts(micro))
        assert torch.equal(images, self.images(micro))

    def test_an_image_is_scored_as_if_alone(self, micro: Kit) -> None:
        import numpy as np

        plugin, images, concepts = self.make(), self.images(micro), self.concepts(micro)
        together = plugin.detect(images.clone(), concepts)
        for row in range(3):
            alone = plugin.detect(images[row : row + 1].clone(), concepts)
            assert np.allclose(alone.scores[0], together.scores[row], atol=1e-3)
            assert (alone.hits[0] == together.hits[row]).all()

    def test_columns_follow_the_concepts(self, micro: Kit) -> None:
        import numpy as np

        plugin, images, concepts = self.make(), self.images(micro), self.concepts(micro)
        forth, back = plugin.detect(images.clone(), concepts), plugin.detect(images.clone(), concepts[::-1])
        assert np.allclose(forth.scores, back.scores[:, ::-1], atol=1e-5)

    def test_other_sizes_are_fine(self, micro: Kit) -> None:
        from torch.nn.functional import interpolate

        images = interpolate(self.images(micro)[:2].float(), size=(96, 64)).to(self.images(micro).dtype)
        assert self.make().detect(images, self.concepts(micro)).hits.shape == (2, len(self.concepts(micro)))

    def test_its_fingerprint_is_stable(self) -> None:
        first = self.make().fingerprint()
        assert isinstance(first, str) and self.make().fingerprint() == first


class EraserConformance(_Conformance):
    """Tests for erasers; ``options`` should make them quick."""

    kind = "erasers"

    def erase(self, micro: Kit, plugin: Any, model: Any, seed: int = _SEED, steps: Any = None) -> Any:
        """Erase the micro policy's concept from ``model``."""
        on_step = (lambda *step: None) if steps is None else (lambda *step: steps.append(step))
        return plugin.erase(contracts.Erasure(model, micro.policy.erase, micro.policy.retain, seed, on_step))

    def exercise(self, micro: Kit, plugin: Any, seed: int = _SEED) -> Any:
        """The digest of the erased weights."""
        from auditor.arms import digest_of_arm

        model = micro.model()
        self.erase(micro, plugin, model, seed)
        return digest_of_arm(model)

    def test_it_changes_the_unet_and_nothing_else(self, micro: Kit) -> None:
        plugin, model = self.make(), micro.model()
        self.erase(micro, plugin, model)
        change = micro.original.change(model, ("unet.*",), plugin.name)
        assert all(bool(tensor.isfinite().all()) for tensor in change.tensors.values())

    def test_what_it_records_is_json(self, micro: Kit) -> None:
        json.dumps(self.erase(micro, self.make(), micro.model()), allow_nan=False)

    def test_it_leaves_no_gradients_on(self, micro: Kit) -> None:
        model = micro.model()
        self.erase(micro, self.make(), model)
        assert not any(parameter.requires_grad for parameter in model.unet.parameters())
        assert not hasattr(model.unet, "peft_config"), "an adapter is still there"

    def test_it_tells_of_its_steps(self, micro: Kit) -> None:
        steps: list[Any] = []
        self.erase(micro, self.make(), micro.model(), steps=steps)
        assert steps and all(1 <= step <= total for _, step, total in steps)

    def test_its_plan_is_json_and_changes_nothing(self, micro: Kit) -> None:
        from auditor.diffusion.model import digest_of_weights

        plugin, model = self.make(), micro.model()
        json.dumps(plugin.plan(contracts.Erasure(model, micro.policy.erase, micro.policy.retain, _SEED)), allow_nan=False)
        assert digest_of_weights(model.unet) == digest_of_weights(micro.model().unet)

    def test_going_on_in_its_folder_gives_the_same(self, micro: Kit, tmp_path: Path) -> None:
        from auditor.diffusion.model import digest_of_weights

        first, again = micro.model(), micro.model()
        for model in (first, again):
            self.make().erase(contracts.Erasure(model, micro.policy.erase, micro.policy.retain, _SEED, folder=tmp_path))
        assert digest_of_weights(first.unet) == digest_of_weights(again.unet)

    def test_it_is_made_for_the_models_device(self, micro: Kit) -> None:
        for device in _devices():
            model = micro.model(device)
            self.erase(micro, self.make(), model)
            assert model.device.type == device

    def test_the_erased_checkpoint_can_be_read_back(self, micro: Kit) -> None:
        model = micro.model()
        self.erase(micro, self.make(), model)
        model.unet.save_pretrained(micro.folder / "unet-of-eraser", safe_serialization=True)
        assert (micro.folder / "unet-of-eraser" / "config.json").exists()


class MaskSourceConformance(_Conformance):
    """Tests for mask sources."""

    kind = "masks"

    def request(self, micro: Kit) -> contracts.MaskRequest:
        """Eight images, and an attention that lies in their upper half."""
        import torch

        attention = torch.zeros(len(micro.images), 8, 8)
        attention[:, :4] = 1
        names = tuple(f"{number:02}" for number in range(len(micro.images)))
        return contracts.MaskRequest(micro.policy.erase[0], micro.images.clone(), attention, names)

    def exercise(self, micro: Kit, plugin: Any, seed: int = _SEED) -> Any:
        """The masks."""
        return plugin.masks(self.request(micro)).tolist()

    def test_masks_are_zeros_and_ones_of_the_right_shape_and_never_empty(self, micro: Kit) -> None:
        request = self.request(micro)
        masks = self.make().masks(request)
        assert masks.shape == request.attention.shape
        assert set(masks.unique().tolist()) <= {0.0, 1.0}
        assert bool(masks.flatten(1).any(1).all())


class MetricConformance(_Conformance):
    """Tests for metrics."""

    kind = "metrics"

    def exercise(self, micro: Kit, plugin: Any, seed: int = _SEED) -> Any:
        """Its value on the eight images, beside themselves in another order."""
        features = self.features(micro, plugin, [concept.name for concept in micro.concepts for _ in range(4)])
        return plugin.value(features, features[::-1])

    def features(self, micro: Kit, plugin: Any, prompts: list[str]) -> Any:
        """Of the eight images; where the metric is about outcomes, with one hit in each role."""
        if not plugin.uses_outcomes:
            return plugin.features(micro.images.clone(), prompts)
        roles = ("erased", "synonym", "retained", "retained") * 2
        outcomes = [
            contracts.ImageOutcome(role, prompt, number > 3) for number, (role, prompt) in enumerate(zip(roles, prompts, strict=True))
        ]
        return plugin.features(micro.images.clone(), prompts, outcomes)

    def test_features_have_a_row_an_image(self, micro: Kit) -> None:
        import numpy as np

        features = self.features(micro, self.make(), ["a photo"] * len(micro.images))
        assert features.ndim == 2 and len(features) == len(micro.images) and np.isfinite(features).all()

    def test_its_value_is_a_finite_number(self, micro: Kit) -> None:
        value = self.exercise(micro, self.make())
        assert isinstance(value, float) and abs(value) < float("inf")


class ReporterConformance(_Conformance):
    """Tests for reporters."""

    kind = "reporters"

    def exercise(self, micro: Kit, plugin: Any, seed: int = _SEED) -> Any:
        """The bytes for the report of a real run."""
        return plugin.render(micro.report, micro.run)

    def test_it_returns_bytes(self, micro: Kit) -> None:
        content = self.exercise(micro, self.make())
        assert isinstance(content, bytes) and content

    def test_it_writes_nothing_itself(self, micro: Kit) -> None:
        before = sorted(micro.run.rglob("*"))
        self.exercise(micro, self.make())
        assert sorted(micro.run.rglob("*")) == before

    @pytest.mark.parametrize("outcome", ["PASS", "FAIL", "INCONCLUSIVE", "ERROR"])
    def test_every_outcome_can_be_shown(self, micro: Kit, outcome: str) -> None:
        from auditor.report import Outcome, Verdict

        report = micro.report.model_copy(update={"verdict": Verdict(outcome=Outcome(outcome), reasons=("for a reason",))})
        assert outcome.encode() in self.make().render(report, micro.run).upper()

    def test_images_that_are_gone_do_not_stop_it(self, micro: Kit, tmp_path: Path) -> None:
        with contextlib.suppress(AuditorError):
            assert isinstance(self.make().render(micro.report, tmp_path), bytes)
