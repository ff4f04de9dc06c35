"""Tests that every metric must pass."""

from __future__ import annotations

from typing import Any

from auditor.plugin import contracts
from auditor.testing.conformance import SEED, Conformance
from auditor.testing.kit import Kit


class MetricConformance(Conformance):
    """Tests for metrics."""

    kind = "metrics"

    def exercise(self, micro: Kit, plugin: Any, seed: int = SEED) -> Any:
        """Its value on the eight images, beside themselves in another order."""
        features = self.features(
            micro, plugin, [concept.name for concept in micro.concepts for _ in range(4)]
        )
        return plugin.value(features, features[::-1])

    def features(self, micro: Kit, plugin: Any, prompts: list[str]) -> Any:
        """Of the eight images; where the metric is about outcomes, with one hit in each role."""
        if not plugin.uses_outcomes:
            return plugin.features(micro.images.clone(), prompts)
        roles = ("erased", "synonym", "retained", "retained") * 2
        outcomes = [
            contracts.ImageOutcome(role, prompt, number > 3)
            for number, (role, prompt) in enumerate(zip(roles, prompts, strict=True))
        ]
        return plugin.features(micro.images.clone(), prompts, outcomes)

    def test_features_have_a_row_an_image(self, micro: Kit) -> None:
        """A finite row for each image."""
        import numpy as np

        features = self.features(micro, self.make(), ["a photo"] * len(micro.images))
        assert features.ndim == 2 and len(features) == len(micro.images) and np.isfinite(features).all()

    def test_its_value_is_a_finite_number(self, micro: Kit) -> None:
        """One float."""
        value = self.exercise(micro, self.make())
        assert isinstance(value, float) and abs(value) < float("inf")
