"""People by their faces: YuNet finds faces (Wu et al. 2023), SFace compares them (Zhong et al. 2021), both
through OpenCV.

The modern stand-in for the GIPHY celebrity detector of the papers. Model files and reference photographs are
the user's own; their sha256 are part of the run's identity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from auditor.plugin import (
    Detection,
    Detector,
    OptionsModel,
    UsageError,
    entry_called,
    hookimpl,
    read_picture,
)

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.plugin import Concept

_SHA256 = "^[0-9a-f]{64}$"
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


class FaceOptions(OptionsModel):
    """Where the networks and the photographs are, and when two faces are one person's."""

    detector: Path
    """YuNet's ONNX file (``face_detection_yunet_*.onnx`` of OpenCV's model zoo)."""
    detector_sha256: str = Field(pattern=_SHA256)
    """Its digest; another file is refused."""
    recogniser: Path
    """SFace's ONNX file (``face_recognition_sface_*.onnx``)."""
    recogniser_sha256: str = Field(pattern=_SHA256)
    """Its digest."""
    gallery: Path
    """A folder with one folder a person, named as the concept, with photographs of one face each."""
    threshold: float = Field(default=0.363, gt=-1, lt=1)
    """Cosine from which on two faces are one person's; the default is OpenCV's for SFace."""
    face_score: float = Field(default=0.9, gt=0, lt=1)
    """YuNet's score from which on something counts as a face."""


class Faces(Detector):
    """A person is seen where a face in the image is most similar to that person's photographs, and similar
    enough.

    ``found`` says which images show a face at all: the reports' second denominator. The gate counts all
    images.
    """

    name = "face"
    summary = "people by their faces, against reference photographs (YuNet and SFace)"
    source = "Wu et al. 2023, doi:10.1007/s11633-023-1423-y; Zhong et al. 2021, arXiv:2010.05350"
    Options: ClassVar[type[OptionsModel]] = FaceOptions

    def fingerprint(self) -> str:
        """sha256 over networks, photographs with whose they are, and OpenCV's version."""
        networks = [("", path) for path in (self.options.detector, self.options.recogniser)]
        photographs = [(name, file) for name, files in self._gallery.items() for file in files]
        entries = [
            [name, hashlib.sha256(_read(path)).hexdigest()] for name, path in (*networks, *photographs)
        ]
        return hashlib.sha256(json.dumps([entries, version("opencv-python-headless")]).encode()).hexdigest()

    @cached_property
    def _gallery(self) -> dict[str, list[Path]]:
        folder = self.options.gallery
        if not folder.is_dir():
            raise UsageError(
                f"There is no gallery {folder}; give a folder with one folder of photographs a person."
            )
        people = {person.name: person for person in sorted(folder.iterdir()) if person.is_dir()}
        return {
            name: sorted(file for file in at.iterdir() if file.suffix.lower() in _SUFFIXES)
            for name, at in people.items()
        }

    @cached_property
    def _networks(self) -> Networks:
        options = self.options
        files = ((options.detector, options.detector_sha256), (options.recogniser, options.recogniser_sha256))
        for path, wanted in files:
            found = hashlib.sha256(_read(path)).hexdigest()
            if found != wanted:
                raise UsageError(f"{path} has the sha256 {found}, not the one in the policy.")
        return Networks(options.detector, options.recogniser, options.face_score)

    @cached_property
    def _references(self) -> dict[str, np.ndarray]:
        """Unit vectors of each person's photographs, (N, width)."""
        known = {}
        for name, files in self._gallery.items():
            vectors = []
            for file in files:
                picture = read_picture(f"The gallery {file.parent}", file)
                faces = self._networks.embed(np.array(picture))
                if len(faces) != 1:
                    raise UsageError(f"{file} shows {len(faces)} faces; a reference photograph shows one.")
                vectors.append(faces[0])
            if not vectors:
                raise UsageError(f"The gallery has no photograph of '{name}'.")
            known[name] = np.stack(vectors)
        return known

    def detect(self, images: Tensor, concepts: Sequence[Concept]) -> Detection:
        """For each image its faces, each face's nearest person."""
        asked = [self._person(concept.name) for concept in concepts]
        faces = [self._networks.embed(image) for image in images.permute(0, 2, 3, 1).contiguous().numpy()]
        return match(faces, self._references, asked, self.options.threshold)

    def _person(self, name: str) -> str:
        """The folder's name of the person called ``name``, in however it is written."""
        try:
            found = entry_called(self.options.gallery, name).name
        except ValueError as error:
            raise UsageError(f"{error}.") from error
        if found not in self._gallery:
            raise UsageError(
                f"The gallery {self.options.gallery} has no folder '{name}'; add one with photographs."
            )
        return found


def match(
    faces: Sequence[np.ndarray], references: dict[str, np.ndarray], asked: Sequence[str], threshold: float
) -> Detection:
    """Detections from each image's faces (unit vectors, (faces, width)) and each person's references (unit
    vectors).

    A face is its nearest person's of all references, if at least ``threshold`` near; scores are the largest
    cosine, cut to 0 to 1.
    """
    people = list(references)
    hits, scores = np.zeros((len(faces), len(asked)), bool), np.zeros((len(faces), len(asked)))
    labels = []
    for row, own in enumerate(faces):
        cosines = (
            np.stack([(own @ references[name].T).max(axis=1) for name in people], axis=1)
            if len(own)
            else np.zeros((0, len(people)))
        )
        best = [people[column] for column in cosines.argmax(axis=1)] if len(own) else []
        near = [
            name
            for name, cosine in zip(best, cosines.max(axis=1, initial=-1), strict=True)
            if cosine >= threshold
        ]
        labels.append(near[0] if near else "unknown face" if len(own) else "no face")
        for column, name in enumerate(asked):
            hits[row, column] = name in near
            scores[row, column] = cosines[:, people.index(name)].max(initial=0).clip(0, 1)
    found = np.repeat(np.array([len(own) > 0 for own in faces])[:, None], len(asked), axis=1)
    return Detection(hits, scores, tuple(labels), found)


class Networks:
    """YuNet and SFace."""

    def __init__(self, detector: Path, recogniser: Path, face_score: float) -> None:
        import cv2

        try:
            self._detector = cv2.FaceDetectorYN.create(str(detector), "", (320, 320), face_score)
            self._recogniser = cv2.FaceRecognizerSF.create(str(recogniser), "")
        except cv2.error as error:
            raise UsageError(
                f"OpenCV cannot read {detector.name} or {recogniser.name}: {str(error).splitlines()[0]}"
            ) from error

    def embed(self, image: np.ndarray) -> np.ndarray:
        """Unit vectors of the faces in an RGB image (uint8, (H, W, 3)): (faces, width)."""
        bgr = np.ascontiguousarray(image[:, :, ::-1])
        self._detector.setInputSize((bgr.shape[1], bgr.shape[0]))
        _, boxes = self._detector.detect(bgr)
        rows = [
            self._recogniser.feature(self._recogniser.alignCrop(bgr, box))[0]
            for box in (boxes if boxes is not None else ())
        ]
        vectors = np.array(rows, dtype=np.float64).reshape(len(rows), -1)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror}.") from error


@hookimpl
def auditor_register_detectors() -> list[type[Detector]]:
    """Faces."""
    return [Faces]
