"""From what a detector returns to what is kept of it: held to its contract, then a record an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from auditor._journal.lines import (
    AnswerObservation,
    BoxesObservation,
    FoundBox,
    LabelObservation,
    Observation,
    ScoreObservation,
)
from auditor.errors import PluginError
from auditor.plugin import _door as door
from auditor.plugin.contracts import Answers, Box, Boxes, Detection, Detector, Labels
from auditor.policy import Concept

Said = Detection | Labels | Boxes | Answers
"""What a detector may return."""


def ask(detector: Detector, images: Tensor, concepts: Sequence[Concept]) -> list[Observation]:
    """Ask one detector of ``images`` (uint8, (N, 3, H, W)): an observation an image, about all ``concepts``.

    Raises :class:`PluginError` where it raises or breaks its contract.
    """
    given = images.clone()
    said = door.call(detector, detector.detect, given, concepts)
    problem = "changed the images that it was to look at" if not torch.equal(given, images) else None
    problem = problem or door.call(detector, problem_of, said, len(images), len(concepts))
    if problem:
        raise PluginError(f"{door.title(detector)} {problem}.")
    return observations(said, [concept.name for concept in concepts])


def observations(said: Said, concepts: Sequence[str]) -> list[Observation]:
    """What was said, image by image, as it is kept. ``said`` is within its contract."""
    match said:
        case Labels():
            return [LabelObservation(label=label) for label in said.labels]
        case Boxes():
            return [BoxesObservation(boxes=tuple(_kept(box) for box in row)) for row in said.boxes]
        case Answers():
            return [AnswerObservation(answers=dict(zip(concepts, row, strict=True))) for row in said.answers]
    found = None if said.found is None else np.asarray(said.found)
    return [
        ScoreObservation(
            label=said.labels[row],
            hits={name: bool(said.hits[row, column]) for column, name in enumerate(concepts)},
            scores={name: float(said.scores[row, column]) for column, name in enumerate(concepts)},
            found=None if found is None else dict(zip(concepts, map(bool, found[row]), strict=True)),
        )
        for row in range(len(said.labels))
    ]


def about(observation: Observation, concepts: Sequence[str]) -> Observation:
    """What it says of ``concepts`` alone."""

    def some(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: values[name] for name in concepts}

    match observation:
        case ScoreObservation(hits=hits, scores=scores, found=found):
            kept = {"hits": some(hits), "scores": some(scores), "found": found and some(found)}
            return observation.model_copy(update=kept)
        case AnswerObservation(answers=answers):
            return AnswerObservation(answers=some(answers))
    return observation


def _kept(box: Box) -> FoundBox:
    left, top, right, bottom = map(float, box.corners)
    return FoundBox(label=box.label, score=float(box.score), corners=(left, top, right, bottom))


def problem_of(said: object, images: int, concepts: int) -> str | None:
    """What is wrong with what a detector said, or None."""
    match said:
        case Detection():
            return _wrong_detection(said, images, concepts)
        case Labels():
            return _wrong_labels(said.labels, images)
        case Boxes():
            return _wrong_boxes(said.boxes, images)
        case Answers():
            return _wrong_answers(said.answers, images, concepts)
    return f"returned {type(said).__name__}, not a Detection, Labels, Boxes or Answers"


def _wrong_detection(said: Detection, images: int, concepts: int) -> str | None:
    hits, scores, found, shape = said.hits, said.scores, said.found, (images, concepts)
    if np.shape(hits) != shape or np.shape(scores) != shape or len(tuple(said.labels or ())) != images:
        return f"returned arrays of shape {np.shape(hits)} and {np.shape(scores)}; {shape} is right"
    if np.asarray(hits).dtype != bool:
        return "returned hits that are not bool"
    if problem := _wrong_labels(said.labels, images):
        return problem
    if not np.isfinite(scores).all():
        return "returned scores that are not finite"
    if (np.asarray(scores) < 0).any() or (np.asarray(scores) > 1).any():
        return "returned scores outside 0 to 1"
    if found is not None and (np.shape(found) != shape or np.asarray(found).dtype != bool):
        return "returned a 'found' that is not one bool an image and concept"
    if found is not None and np.asarray(hits)[~np.asarray(found)].any():
        return "returned hits in images where it found nothing to judge"
    return None


def _wrong_labels(labels: Sequence[object], images: int) -> str | None:
    if len(tuple(labels or ())) != images:
        return f"returned {len(tuple(labels or ()))} labels for {images} images"
    return None if all(isinstance(label, str) for label in labels) else "returned labels that are not strings"


def _wrong_boxes(boxes: Sequence[Sequence[object]], images: int) -> str | None:
    if len(boxes) != images:
        return f"returned the boxes of {len(boxes)} images; {images} were shown"
    for box in (box for row in boxes for box in row):
        if not isinstance(box, Box) or not isinstance(box.label, str):
            return "returned boxes that are no Box with a label"
        numbers = np.asarray([box.score, *box.corners], dtype=float)
        if numbers.shape != (5,) or not np.isfinite(numbers).all():
            return "returned a box without a finite score and four finite corners"
        if (numbers < 0).any() or (numbers > 1).any():
            return "returned a box with a score or a corner outside 0 to 1"
    return None


def _wrong_answers(answers: Sequence[Sequence[object]], images: int, concepts: int) -> str | None:
    if len(answers) != images or any(len(row) != concepts for row in answers):
        return f"returned answers that are not one for each of {images} images and {concepts} concepts"
    return (
        None
        if all(isinstance(text, str) for row in answers for text in row)
        else "returned answers that are not strings"
    )
