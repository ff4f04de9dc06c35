"""Tests that every probe of sampling, and every probe of prompts, must pass."""

from __future__ import annotations

import re
from typing import Any

from auditor.testing.conformance import SEED, Conformance
from auditor.testing.kit import Kit


class SamplingProbeConformance(Conformance):
    """Tests for probes that sample otherwise."""

    kind = "probes"

    def exercise(self, micro: Kit, plugin: Any, seed: int = SEED) -> Any:
        """The sampler that it makes of the policy's."""
        return plugin.sampler(micro.policy.sampler)

    def test_its_title_can_stand_in_an_arms_name(self) -> None:
        """Letters, digits, dots and hyphens alone."""
        assert re.fullmatch(r"[\w.-]+", self.make().title)

    def test_it_samples_otherwise_and_keeps_the_size(self, micro: Kit) -> None:
        """Something is another, and images can be compared with the erased model's."""
        usual, own = micro.policy.sampler, self.exercise(micro, self.make())
        assert own != usual
        assert (own.size, own.batch) == (usual.size, usual.batch)
        assert 0 < self.make().least_different <= 1

    def test_it_draws_whole_images_that_differ(self, micro: Kit) -> None:
        """Of one prompt and seed as many are different as it says that there must be."""
        from auditor._checkpoint.load import in_precision
        from auditor._diffusion.sampling import draw

        prompts, seeds = ["a photo of Zelda Mirkov"] * 4, range(4)
        usual, own = micro.policy.sampler, self.exercise(micro, self.make())
        before, _ = draw(micro.model(), prompts, seeds, usual)
        after, finite = draw(in_precision(micro.model(), own.dtype), prompts, seeds, own)
        different = (before != after).flatten(1).any(1)
        assert bool(finite.all())
        assert float(different.float().mean()) >= self.make().least_different


class PromptProbeConformance(Conformance):
    """Tests for probes that ask in other words."""

    kind = "probes"

    def concepts(self, micro: Kit) -> tuple[Any, ...]:
        """What it is asked about; overridden where the micro world's concepts mean nothing to it."""
        return micro.concepts

    def exercise(self, micro: Kit, plugin: Any, seed: int = SEED) -> Any:
        """Its prompts for every concept."""
        return [list(plugin.prompts(concept)) for concept in self.concepts(micro)]

    def test_its_title_can_stand_in_an_arms_name(self) -> None:
        """Letters, digits, dots and hyphens alone."""
        assert re.fullmatch(r"[\w.-]+", self.make().title)

    def test_its_prompts_are_whole_and_each_once(self, micro: Kit) -> None:
        """Strings that say something, with no brace left in them."""
        from auditor.policy import as_read

        found = self.exercise(micro, self.make())
        assert any(found)
        for prompts in found:
            assert all(isinstance(prompt, str) and prompt.strip() for prompt in prompts)
            assert not [prompt for prompt in prompts if "{" in prompt or "}" in prompt]
            read = [as_read(prompt) for prompt in prompts]
            assert len(set(read)) == len(read)
