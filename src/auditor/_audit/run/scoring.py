"""Asks the policy's detectors about pictures, and holds them to their contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from auditor._audit.cells import PlannedSample, Role
from auditor._journal.lines import Score
from auditor.errors import AuditorError, PluginError
from auditor.plugin import _door as door
from auditor.plugin.contracts import Detection, Detector
from auditor.policy import Concept, Policy


@dataclass(frozen=True)
class Known:
    """A picture (uint8, (3, H, W)) and what each detector said of it: whether it fired, by concept."""

    image: Tensor
    hits: Mapping[str, Mapping[str, bool]]


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

    scores: Mapping[str, Score] = field(default_factory=dict)
    error: str | None = None


class Scorer:
    """The policy's detectors, asked about pictures and held to their contract."""

    def __init__(self, policy: Policy, detectors: Sequence[Detector]) -> None:
        self._erased, self._concepts = policy.erase, (*policy.erase, *policy.retain)
        self._columns = {concept.name: number for number, concept in enumerate(self._concepts)}
        self._detectors = detectors
        self._known: list[Known] = []
        self._asked = 0

    def remember(self, pictures: Sequence[Known]) -> None:
        """From here on one of these is shown with every batch: a detector that says something else of it
        has gone astray."""
        self._known = list(pictures)

    def gate(self, images: Tensor, concepts: Sequence[Concept]) -> Detection:
        """What the gate detector says of ``images``."""
        return ask(self._detectors[0], images, concepts)

    def score(self, questions: Sequence[Question], images: Tensor) -> list[Answer]:
        """An answer a picture. A batch that breaks is tried again image by image."""
        try:
            return [Answer(scores) for scores in self._score(questions, images)]
        except AuditorError as error:
            if len(questions) == 1:
                return [Answer(error=str(error))]
        return [self.score([asked], image[None])[0] for asked, image in zip(questions, images, strict=True)]

    def _score(self, questions: Sequence[Question], images: Tensor) -> list[dict[str, Score]]:
        self._asked += 1
        found = {detector.name: self._ask(detector, images) for detector in self._detectors}
        return [
            {name: self._score_of(asked, detection, row) for name, detection in found.items()}
            for row, asked in enumerate(questions)
        ]

    def _score_of(self, asked: Question, detection: Detection, row: int) -> Score:
        """One row of what a detector said."""
        about, own = self._concepts if asked.retained else self._erased, self._columns[asked.concept]
        return Score(
            label=detection.labels[row],
            hits={concept.name: bool(detection.hits[row, self._columns[concept.name]]) for concept in about},
            score=float(detection.scores[row, own]),
            found=None if detection.found is None else bool(detection.found[row, own]),
        )

    def _ask(self, detector: Detector, images: Tensor) -> Detection:
        """Ask one detector, with a picture among the images of which it is known what it said before."""
        known = self._known[self._asked % len(self._known)] if self._known else None
        if known is None or known.image.shape != images.shape[1:]:
            return ask(detector, images, self._concepts)
        place = (7 * self._asked) % (len(images) + 1)
        found = ask(detector, torch.cat([images[:place], known.image[None], images[place:]]), self._concepts)
        said = {
            concept.name: bool(found.hits[place, self._columns[concept.name]]) for concept in self._erased
        }
        if said != {concept: hit for concept, hit in known.hits[detector.name].items() if concept in said}:
            raise PluginError(
                f"{door.title(detector)} says something else of a picture of the base than when it first saw "
                "it; what it says now is not known to be right."
            )
        rows = [row for row in range(len(images) + 1) if row != place]
        return Detection(
            np.asarray(found.hits)[rows],
            np.asarray(found.scores)[rows],
            tuple(found.labels[row] for row in rows),
            None if found.found is None else np.asarray(found.found)[rows],
        )


def ask(detector: Detector, images: Tensor, concepts: Sequence[Concept]) -> Detection:
    """Ask one detector, and hold it to its contract."""
    given = images.clone()
    detection = door.call(detector, detector.detect, given, concepts)
    problem = "changed the images that it was to look at" if not torch.equal(given, images) else None
    problem = problem or door.call(detector, problem_of, detection, len(images), len(concepts))
    if problem:
        raise PluginError(f"{door.title(detector)} {problem}.")
    return detection


def problem_of(detection: Detection, images: int, concepts: int) -> str | None:
    """What is wrong with what a detector said, or None."""
    if not isinstance(detection, Detection):
        return f"returned {type(detection).__name__}, not a Detection"
    hits, scores, labels, found, shape = (
        detection.hits,
        detection.scores,
        detection.labels,
        detection.found,
        (images, concepts),
    )
    if np.shape(hits) != shape or np.shape(scores) != shape or len(tuple(labels or ())) != images:
        return f"returned arrays of shape {np.shape(hits)} and {np.shape(scores)}; {shape} is right"
    if np.asarray(hits).dtype != bool:
        return "returned hits that are not bool"
    if not all(isinstance(label, str) for label in labels):
        return "returned labels that are not strings"
    if not np.isfinite(scores).all():
        return "returned scores that are not finite"
    if (np.asarray(scores) < 0).any() or (np.asarray(scores) > 1).any():
        return "returned scores outside 0 to 1"
    if found is not None and (np.shape(found) != shape or np.asarray(found).dtype != bool):
        return "returned a 'found' that is not one bool an image and concept"
    if found is not None and np.asarray(hits)[~np.asarray(found)].any():
        return "returned hits in images where it found nothing to judge"
    return None
