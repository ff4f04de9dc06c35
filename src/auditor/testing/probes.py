"""Tests that every probe of weights must pass."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from auditor.plugin import contracts
from auditor.testing.conformance import SEED, Conformance, devices
from auditor.testing.kit import Kit


class ProbeConformance(Conformance):
    """Tests for probes that change weights. ``method`` and ``doses`` are what a policy would give them."""

    kind = "probes"
    method: ClassVar[str] = "lora"
    doses: ClassVar[tuple[int, ...]] = (1, 2)

    def setting(self, micro: Kit, seed: int = SEED) -> contracts.ProbeSetting:
        """What the probe may know when it chooses."""
        from auditor.policy import forbidden_names

        return contracts.ProbeSetting(micro.policy, seed, frozenset(forbidden_names(micro.policy)))

    def examples(self, micro: Kit, plugin: Any) -> tuple[Any, tuple[str, ...]]:
        """Images and captions of its training set."""
        import torch

        from auditor._audit.run.captioned_folder import read_captioned_folder

        asked = plugin.training_set(self.setting(micro))
        if isinstance(asked, Path):
            images, captions = read_captioned_folder(asked, 32)
            return images, tuple(captions)
        captions = [
            template.format(request.concept)
            for request in asked
            for template in request.prompts
            for _ in range(request.images_per_prompt)
        ]
        return (micro.draw(captions) if captions else torch.empty((0, 3, 32, 32), dtype=torch.uint8)), tuple(
            captions
        )

    def update(
        self, micro: Kit, plugin: Any, model: Any, seed: int = SEED, *, sham: bool = False, steps: Any = None
    ) -> Iterator[int]:
        """Start an update of ``model``; what it uses of the base is of the kit's."""
        from auditor._audit.run.probing import of_the_base

        images, captions = self.examples(micro, plugin)
        on_step = (lambda step: None) if steps is None else steps.append
        doses = (2,) if sham else self.doses
        found: Iterator[int] = plugin.update(
            contracts.Update(
                model,
                images.clone(),
                captions,
                self.method,
                doses,
                seed,
                sham=sham,
                on_step=on_step,
                **of_the_base(plugin, micro.model(model.device.type)),
            )
        )
        return found

    def exercise(self, micro: Kit, plugin: Any, seed: int = SEED) -> Any:
        """The digest of the weights at every dose."""
        from auditor._audit.run_folder.arms import digest_of_arm

        model = micro.model()
        return [(dose, digest_of_arm(model)) for dose in self.update(micro, plugin, model, seed)]

    def test_its_title_can_stand_in_an_arms_name(self) -> None:
        """Letters, digits, dots and hyphens alone."""
        assert re.fullmatch(r"[\w.-]+", self.make().title)

    def test_its_training_set_is_chosen_by_the_seed_alone(self, micro: Kit) -> None:
        """The same seed gives the same requests."""
        plugin = self.make()
        assert plugin.training_set(self.setting(micro)) == plugin.training_set(self.setting(micro))

    def test_its_training_set_holds_no_audited_concept(self, micro: Kit) -> None:
        """No caption names an erased or retained concept."""
        from auditor.policy import recognised_in

        _, captions = self.examples(micro, self.make())
        forbidden = self.setting(micro).forbidden
        assert not [caption for caption in captions if recognised_in(caption, forbidden)]

    def test_it_reaches_every_dose_in_order(self, micro: Kit) -> None:
        """It yields each number of training steps once, in rising order."""
        assert list(self.update(micro, self.make(), micro.model())) == list(self.doses)

    def test_it_changes_what_it_says_and_nothing_else(self, micro: Kit) -> None:
        """What changed lies within ``changes()``, is finite, and is no less than ``least_change()``."""
        plugin, model = self.make(), micro.model()
        for _ in self.update(micro, plugin, model):
            change = micro.original.change(model, plugin.changes(self.method), plugin.name)
        assert all(bool(tensor.isfinite().all()) for tensor in change.tensors.values())
        if not self.examples(micro, plugin)[1]:
            assert change.relative >= plugin.least_change() > 0

    def test_its_sham_changes_no_image(self, micro: Kit) -> None:
        """At learning rate 0 it draws what the model drew before."""
        import torch

        from auditor._diffusion.sampling import draw

        plugin, model, prompts = self.make(), micro.model(), ["a photo of Zelda Mirkov"] * 2
        if not plugin.has_sham:
            pytest.skip("it does not train")
        before, _ = draw(micro.model(), prompts, [1, 2], micro.policy.sampler)
        for _ in self.update(micro, plugin, model, sham=True):
            after, _ = draw(model, prompts, [1, 2], micro.policy.sampler)
        assert torch.equal(before, after)

    def test_in_company_it_learns_what_it_learns_alone(self, micro: Kit) -> None:
        """``lora_training()`` says how it really trains: its factors are the same to 1e-4 either way."""
        from auditor._diffusion.finetune import Examples
        from auditor._diffusion.side_by_side import side_by_side
        from auditor._diffusion.together import Member, Together, may_join

        plugin, model = self.make(), micro.model()
        training = plugin.lora_training(self.method)
        if training is None:
            pytest.skip("it is trained alone")
        assert may_join(training)
        images, captions = self.examples(micro, plugin)
        member = Member(Examples.of(model, images, captions), training, self.doses, SEED)
        pair = [member, Member(member.examples, training, self.doses, SEED + 1)]
        ((found, _),) = side_by_side([Together(micro.model(), pair).train])
        for dose in self.update(micro, plugin, model):
            alone = model.denoiser.state_dict()
            assert found[dose]
            for name, factor in found[dose].items():
                assert (alone[name] - factor).abs().max() <= 1e-4

    def test_it_tells_of_every_step(self, micro: Kit) -> None:
        """``on_step`` is called with rising numbers from 1."""
        steps: list[int] = []
        if not self.make().has_sham:
            pytest.skip("it does not train")
        list(self.update(micro, self.make(), micro.model(), steps=steps))
        assert steps and steps == sorted(set(steps)) and steps[0] >= 1

    def test_it_can_be_ended_after_its_first_dose(self, micro: Kit) -> None:
        """Closing its generator early is no error."""
        steps = self.update(micro, self.make(), micro.model())
        assert next(iter(steps)) == self.doses[0]
        if hasattr(steps, "close"):
            steps.close()

    def test_it_is_made_for_the_models_device(self, micro: Kit) -> None:
        """It works on the device that the model is on."""
        for device in devices():
            model = micro.model(device)
            assert list(self.update(micro, self.make(), model)) == list(self.doses)
            assert model.device.type == device

    def test_its_cost_is_a_number(self) -> None:
        """``training_calls`` says how many passes a dose takes."""
        assert self.make().training_calls(self.doses[-1]) >= 0
