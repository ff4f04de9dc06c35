"""The contract of the face detector. No network and no photograph is here, so what YuNet and SFace see is not
measured.

Their place is taken by mean colours: the part around them (gallery, digests, matching, denominators) is the
real one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from auditor.plugin import UsageError
from auditor.testing import DetectorConformance, Kit
from auditor_face import FaceOptions, Faces, match

EMPTY = hashlib.sha256(b"").hexdigest()


class Colours:
    """In the networks' place: a "face" is any image that is not black, its vector is its mean colour."""

    def embed(self, image: np.ndarray) -> np.ndarray:
        colour = image.reshape(-1, 3).mean(axis=0)[None].astype(float)
        return colour / np.linalg.norm(colour) if colour.any() else np.zeros((0, 3))


class Coloured(Faces):
    """Faces, told apart by their colour."""

    _networks = Colours()  # type: ignore[assignment]


@pytest.fixture(scope="session", autouse=True)
def gallery(tmp_path_factory: pytest.TempPathFactory, micro: Kit) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    for number, concept in enumerate(micro.concepts):
        (folder / concept.name).mkdir()
        colour = [30, 30, 30]
        colour[number] = 220
        Image.new("RGB", (16, 16), tuple(colour)).save(folder / concept.name / "1.png")
    for name in ("yunet.onnx", "sface.onnx"):
        (folder.parent / name).write_bytes(b"")
    TestColoured.options = {
        "detector": str(folder.parent / "yunet.onnx"),
        "detector_sha256": EMPTY,
        "recogniser": str(folder.parent / "sface.onnx"),
        "recogniser_sha256": EMPTY,
        "gallery": str(folder),
    }
    return folder


class TestColoured(DetectorConformance):
    plugin = Coloured
    options = {}


def options(**changes: object) -> FaceOptions:
    return FaceOptions.model_validate(TestColoured.options | changes)


def test_each_image_shows_whom_its_faces_are_nearest_to(micro: Kit) -> None:
    colours = torch.tensor([(200, 40, 40), (40, 200, 40), (0, 0, 0)], dtype=torch.uint8)
    found = Coloured(options()).detect(colours.view(3, 3, 1, 1).expand(3, 3, 8, 8), micro.concepts)
    assert found.hits.tolist() == [[True, False], [False, True], [False, False]]
    assert found.labels == (micro.concepts[0].name, micro.concepts[1].name, "no face")
    assert found.found is not None and found.found[:, 0].tolist() == [True, True, False]


def test_a_face_that_is_near_to_nobody_is_nobodys() -> None:
    references = {"a": np.array([[1.0, 0.0, 0.0]]), "b": np.array([[0.0, 1.0, 0.0]])}
    faces = [np.array([[0.0, 0.0, 1.0]]), np.array([[0.8, 0.6, 0.0], [0.0, 1.0, 0.0]])]
    found = match(faces, references, ["b", "a"], 0.7)
    assert found.labels == ("unknown face", "a")
    assert found.hits.tolist() == [[False, False], [True, True]]
    assert found.scores.tolist() == [[0.0, 0.0], [1.0, 0.8]]


def test_what_is_missing_is_said(gallery: Path, micro: Kit) -> None:
    image = torch.full((1, 3, 8, 8), 90, dtype=torch.uint8)
    stranger = micro.concepts[0].model_copy(update={"name": "Somebody Else"})
    with pytest.raises(UsageError, match="has no folder 'Somebody Else'"):
        Coloured(options()).detect(image, [stranger])
    with pytest.raises(UsageError, match="not the one in the policy"):
        Faces(options(detector_sha256="0" * 64)).detect(image, micro.concepts)
    with pytest.raises(UsageError, match="OpenCV cannot read"):
        Faces(options()).detect(image, micro.concepts)
    with pytest.raises(UsageError, match="There is no gallery"):
        Faces(options(gallery="nowhere")).fingerprint()
