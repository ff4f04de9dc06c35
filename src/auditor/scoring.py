"""Asks the policy's detectors about pictures, and holds them to their contract."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from auditor.errors import PluginError
from auditor.journal import Score
from auditor.plan import Plan, PlannedSample, Role
from auditor.plugin import door
from auditor.plugin.contracts import Detection, Detector
from auditor.plugin.loader import make_plugin
from auditor.policy import Concept


class Scorer:
    """The policy's detectors, asked about pictures and held to their contract."""

    def __init__(self, plan: Plan) -> None:
        self._columns = plan.columns
        self._erased, self._concepts = plan.policy.erase, (*plan.policy.erase, *plan.policy.retain)
        self._detectors: list[tuple[str, Detector]] = [
            (use.use, make_plugin("detectors", use.use, use.options)) for use in plan.policy.detectors
        ]

    def gate(self, images: Tensor, concepts: Sequence[Concept]) -> Detection:
        """What the gate detector says of ``images``."""
        return _detect(self._detectors[0][1], images, concepts)

    def score(self, batch: Sequence[PlannedSample], images: Tensor) -> list[dict[str, Score] | str]:
        """For each sample the detectors' scores, or why there are none. A batch that breaks is tried again image by image."""
        try:
            return list(self._score(batch, images))
        except PluginError as error:
            if len(batch) == 1:
                return [str(error)]
        return [self.score([planned], image[None])[0] for planned, image in zip(batch, images, strict=True)]

    def _score(self, batch: Sequence[PlannedSample], images: Tensor) -> list[dict[str, Score]]:
        found = {name: _detect(detector, images, self._concepts) for name, detector in self._detectors}
        scores = []
        for row, planned in enumerate(batch):
            asked = self._concepts if planned.cell.role is Role.RETAINED else self._erased
            scores.append(
                {
                    name: Score(
                        label=detection.labels[row],
                        hits={concept.name: bool(detection.hits[row, self._columns[concept.name]]) for concept in asked},
                        score=float(detection.scores[row, self._columns[planned.concept]]),
                    )
                    for name, detection in found.items()
                }
            )
        return scores


def _detect(detector: Detector, images: Tensor, concepts: Sequence[Concept]) -> Detection:
    """Ask one detector, and hold it to its contract."""
    detection = door.call(detector, detector.detect, images.clone(), concepts)
    shape = (len(images), len(concepts))
    problem = None
    if not isinstance(detection, Detection):
        problem = f"returned {type(detection).__name__}, not a Detection"
    elif np.shape(detection.hits) != shape or np.shape(detection.scores) != shape or len(tuple(detection.labels or ())) != len(images):
        problem = f"returned arrays of shape {np.shape(detection.hits)} and {np.shape(detection.scores)}; {shape} is right"
    elif np.asarray(detection.hits).dtype != bool:
        problem = "returned hits that are not bool"
    elif not all(isinstance(label, str) for label in detection.labels):
        problem = "returned labels that are not strings"
    elif not np.isfinite(detection.scores).all():
        problem = "returned scores that are not finite"
    elif (np.asarray(detection.scores) < 0).any() or (np.asarray(detection.scores) > 1).any():
        problem = "returned scores outside 0 to 1"
    if problem:
        raise PluginError(f"The detector '{detector.name}' {problem}.")
    return detection
