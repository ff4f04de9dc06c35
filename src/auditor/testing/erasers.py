"""Tests that every eraser, and every source of masks for one, must pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from auditor.plugin import contracts
from auditor.testing.conformance import SEED, Conformance, devices
from auditor.testing.kit import Kit


class EraserConformance(Conformance):
    """Tests for erasers; ``options`` should make them quick."""

    kind = "erasers"

    def erase(self, micro: Kit, plugin: Any, model: Any, seed: int = SEED, steps: Any = None) -> Any:
        """Erase the micro policy's concept from ``model``."""
        on_step = (lambda *step: None) if steps is None else (lambda *step: steps.append(step))
        return plugin.erase(contracts.Erasure(model, micro.policy.erase, micro.policy.retain, seed, on_step))

    def exercise(self, micro: Kit, plugin: Any, seed: int = SEED) -> Any:
        """The digest of the erased weights."""
        from auditor._audit.run_folder.arms import digest_of_arm

        model = micro.model()
        self.erase(micro, plugin, model, seed)
        return digest_of_arm(model)

    def test_it_changes_what_it_says_and_nothing_else(self, micro: Kit) -> None:
        """What is outside of ``changes()`` stays bit for bit, and what changed is finite."""
        plugin, model = self.make(), micro.model()
        self.erase(micro, plugin, model)
        change = micro.original.change(model, plugin.changes(), plugin.name)
        assert all(bool(tensor.isfinite().all()) for tensor in change.tensors.values())

    def test_what_it_records_is_json(self, micro: Kit) -> None:
        """Its record can be written to ``erasure.json``."""
        json.dumps(self.erase(micro, self.make(), micro.model()), allow_nan=False)

    def test_it_leaves_no_gradients_on(self, micro: Kit) -> None:
        """No parameter asks for gradients, and no adapter is left."""
        model = micro.model()
        self.erase(micro, self.make(), model)
        assert not any(parameter.requires_grad for parameter in model.denoiser.parameters())
        assert not hasattr(model.denoiser, "peft_config"), "an adapter is still there"

    def test_it_tells_of_its_steps(self, micro: Kit) -> None:
        """``on_step`` is called with a stage, a step and their number."""
        steps: list[Any] = []
        self.erase(micro, self.make(), micro.model(), steps=steps)
        assert steps and all(1 <= step <= total for _, step, total in steps)

    def test_its_plan_is_json_and_changes_nothing(self, micro: Kit) -> None:
        """Planning says what would be done, and does nothing."""
        from auditor._diffusion.model import digest_of_weights

        plugin, model = self.make(), micro.model()
        json.dumps(
            plugin.plan(contracts.Erasure(model, micro.policy.erase, micro.policy.retain, SEED)),
            allow_nan=False,
        )
        assert digest_of_weights(model.denoiser) == digest_of_weights(micro.model().denoiser)

    def test_going_on_in_its_folder_gives_the_same(self, micro: Kit, tmp_path: Path) -> None:
        """A second call with the first one's folder ends with the same weights."""
        from auditor._diffusion.model import digest_of_weights

        first, again = micro.model(), micro.model()
        for model in (first, again):
            self.make().erase(
                contracts.Erasure(model, micro.policy.erase, micro.policy.retain, SEED, folder=tmp_path)
            )
        assert digest_of_weights(first.denoiser) == digest_of_weights(again.denoiser)

    def test_it_is_made_for_the_models_device(self, micro: Kit) -> None:
        """It works on the device that the model is on."""
        for device in devices():
            model = micro.model(device)
            self.erase(micro, self.make(), model)
            assert model.device.type == device

    def test_the_erased_checkpoint_can_be_read_back(self, micro: Kit) -> None:
        """What it leaves can be saved by diffusers."""
        model = micro.model()
        self.erase(micro, self.make(), model)
        model.denoiser.save_pretrained(micro.folder / "unet-of-eraser", safe_serialization=True)
        assert (micro.folder / "unet-of-eraser" / "config.json").exists()


class MaskSourceConformance(Conformance):
    """Tests for mask sources."""

    kind = "masks"

    def request(self, micro: Kit) -> contracts.MaskRequest:
        """Eight images, and an attention that lies in their upper half."""
        import torch

        attention = torch.zeros(len(micro.images), 8, 8)
        attention[:, :4] = 1
        names = tuple(f"{number:02}" for number in range(len(micro.images)))
        return contracts.MaskRequest(micro.policy.erase[0], micro.images.clone(), attention, names)

    def exercise(self, micro: Kit, plugin: Any, seed: int = SEED) -> Any:
        """The masks."""
        return plugin.masks(self.request(micro)).tolist()

    def test_masks_are_zeros_and_ones_of_the_right_shape_and_never_empty(self, micro: Kit) -> None:
        """Each mask says of every cell yes or no, and of one at least yes."""
        request = self.request(micro)
        masks = self.make().masks(request)
        assert masks.shape == request.attention.shape
        assert set(masks.unique().tolist()) <= {0.0, 1.0}
        assert bool(masks.flatten(1).any(1).all())
