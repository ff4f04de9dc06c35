"""CLIP score: how well images fit their prompts (Hessel et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from auditor.builtins.clip.options import ClipOptions
from auditor.plugin.contracts import ImageOutcome, Metric, OptionsModel

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


class ClipMetric(Metric):
    """A metric on features of open_clip."""

    Options: ClassVar[type[OptionsModel]] = ClipOptions

    def files(self) -> tuple[Path, ...]:
        """Of the CLIP."""
        options: ClipOptions = self.options
        return options.clip_files()


class ClipScore(ClipMetric):
    """100 times the cosine of image and prompt, at least 0, averaged over images."""

    name = "clip-score"
    summary = "how well images fit their prompts: 100 x max(cosine, 0) of open_clip features"
    source = "Hessel et al. 2021, arXiv:2104.08718 (scaled by 100, as torchmetrics does)"

    def features(
        self, images: Tensor, prompts: Sequence[str], outcomes: Sequence[ImageOutcome] | None = None
    ) -> np.ndarray:
        """One column: each image's score."""
        from auditor.builtins.clip.model import load_clip

        clip = load_clip(self.options.model, self.options.pretrained)
        cosine = (clip.image_features(images) * clip.text_features(prompts)).sum(dim=1, keepdim=True)
        scores: np.ndarray = (100 * cosine.clamp(min=0)).double().numpy()
        return scores

    def value(self, features: np.ndarray, reference: np.ndarray) -> float:
        """The mean."""
        return float(features.mean())
