"""Asks the policy's detectors about pictures, and notices where one goes astray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from auditor._audit.cells import PlannedSample, Role
from auditor._audit.evidence.decisions import MISS, Decisions
from auditor._audit.run.observing import about, ask
from auditor._journal.lines import Observation
from auditor.errors import AuditorError, PluginError
from auditor.plugin import _door as door
from auditor.plugin.contracts import Detector
from auditor.policy import Concept, Policy


@dataclass(frozen=True)
class Known:
    """A picture (uint8, (3, H, W)) and what each detector said of it."""

    image: Tensor
    said: Mapping[str, Observation]


@dataclass(frozen=True)
class Question:
    """What is asked of one picture: the concept it is of, and whether it is asked about retained ones too."""

    concept: str
    retained: bool


def question(planned: PlannedSample) -> Question:
    """What an audit asks of a sample: about retained concepts only where one was drawn."""
    return Question(planned.concept, planned.cell.role is Role.RETAINED)


@dataclass(frozen=True)
class Answer:
    """What each detector said of one picture, by its name; or why it was not scored."""

    said: Mapping[str, Observation] = field(default_factory=dict)
    error: str | None = None


class Scorer:
    """The policy's detectors, asked about pictures."""

    def __init__(self, policy: Policy, detectors: Sequence[Detector]) -> None:
        self._erased = [concept.name for concept in policy.erase]
        self._concepts = (*policy.erase, *policy.retain)
        self._all = [concept.name for concept in self._concepts]
        self.decisions = Decisions(policy)
        self._detectors = detectors
        self._known: list[Known] = []
        self._asked = 0

    def remember(self, pictures: Sequence[Known]) -> None:
        """From here on one of these is shown with every batch: a detector that says something else of it
        has gone astray."""
        self._known = list(pictures)

    def may_show(self, images: Tensor, concepts: Sequence[Concept]) -> NDArray[np.bool_]:
        """Where the gate does not say that an image is without a concept: bool, (N, C)."""
        deciding = [each for each in self._detectors if each.name in self.decisions.deciding]
        found = {detector.name: ask(detector, images, concepts) for detector in deciding}
        said = [{name: rows[row] for name, rows in found.items()} for row in range(len(images))]
        shown = [[self.decisions.decided(one, concept.name) != MISS for concept in concepts] for one in said]
        return np.array(shown, bool).reshape(len(images), len(concepts))

    def score(self, questions: Sequence[Question], images: Tensor) -> list[Answer]:
        """An answer a picture. A batch that breaks is tried again image by image."""
        try:
            return [Answer(said) for said in self._score(questions, images)]
        except AuditorError as error:
            if len(questions) == 1:
                return [Answer(error=str(error))]
        return [self.score([asked], image[None])[0] for asked, image in zip(questions, images, strict=True)]

    def _score(self, questions: Sequence[Question], images: Tensor) -> list[dict[str, Observation]]:
        self._asked += 1
        found = {detector.name: self._ask(detector, images) for detector in self._detectors}
        self.decisions.refuse_scoreless({name: rows[0] for name, rows in found.items() if rows})
        return [
            {
                name: about(rows[row], self._all if asked.retained else self._erased)
                for name, rows in found.items()
            }
            for row, asked in enumerate(questions)
        ]

    def _ask(self, detector: Detector, images: Tensor) -> list[Observation]:
        """Ask one detector, with a picture among the images of which it is known what it said before."""
        known = self._known[self._asked % len(self._known)] if self._known else None
        if known is None or known.image.shape != images.shape[1:]:
            return ask(detector, images, self._concepts)
        place = (7 * self._asked) % (len(images) + 1)
        found = ask(detector, torch.cat([images[:place], known.image[None], images[place:]]), self._concepts)
        now, before = {detector.name: found.pop(place)}, {detector.name: known.said[detector.name]}
        if self.decisions.settled(now, self._erased) != self.decisions.settled(before, self._erased):
            raise PluginError(
                f"{door.title(detector)} says something else of a picture of the base than when it first saw "
                "it; what it says now is not known to be right."
            )
        return found
