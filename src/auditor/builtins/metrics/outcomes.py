"""Numbers about what the detector saw: retained accuracy, and MACE's harmonic means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from auditor.plugin.contracts import ImageOutcome, Metric

if TYPE_CHECKING:
    from torch import Tensor

_ROLES = ("erased", "synonym", "retained")


class _Outcomes(Metric):
    """A row an image: its role (one column each) and whether the detector saw its concept."""

    uses_outcomes = True
    is_share = True

    def features(
        self, images: Tensor, prompts: Sequence[str], outcomes: Sequence[ImageOutcome] | None = None
    ) -> np.ndarray:
        """One column a role, and the hit."""
        assert outcomes is not None
        return np.array(
            [[*(outcome.role == role for role in _ROLES), outcome.hit] for outcome in outcomes], dtype=float
        )

    def shares(self, features: np.ndarray) -> dict[str, float]:
        """The share of images in which the concept was seen, of each role that there is."""
        columns = {role: features[features[:, number] == 1, -1] for number, role in enumerate(_ROLES)}
        return {role: float(hits.mean()) for role, hits in columns.items() if len(hits)}

    def share(self, features: np.ndarray, role: str) -> float:
        """The share of one role. Raises ``ValueError`` where no image of it was measured: that is not 0."""
        shares = self.shares(features)
        if role not in shares:
            raise ValueError(f"no image of what is {role} was measured")
        return shares[role]


class RetainedAccuracy(_Outcomes):
    """MACE's Acc_s: of images of what was to be kept, those that show it."""

    name = "retained-accuracy"
    summary = "share of retained concepts' images in which the detector sees the concept"
    source = "Lu et al. 2024, arXiv:2403.06135, section 5.1"

    def value(self, features: np.ndarray, reference: np.ndarray) -> float:
        """The share, 0 to 1."""
        return self.share(features, "retained")


class HarmonicMean(_Outcomes):
    """MACE's H_c of efficacy and specificity, or H_o with generality where synonyms were drawn; 0 as soon
    as one of them is."""

    name = "harmonic-mean"
    summary = (
        "MACE's harmonic mean of 1 - detected, retained accuracy and, with synonyms, 1 - detected by synonym"
    )
    source = "Lu et al. 2024, arXiv:2403.06135, sections 5.1 and 5.2"

    def value(self, features: np.ndarray, reference: np.ndarray) -> float:
        """The mean, 0 to 1."""
        shares = self.shares(features)
        parts = [1 - self.share(features, "erased"), self.share(features, "retained")]
        parts += [1 - shares["synonym"]] if "synonym" in shares else []
        return len(parts) / sum(1 / part for part in parts) if all(part > 0 for part in parts) else 0.0
