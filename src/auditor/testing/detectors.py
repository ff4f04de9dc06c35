"""Tests that every detector must pass."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

from auditor.testing.kit import Kit

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.policy import Concept
from auditor.testing.conformance import SEED, Conformance


def _decomposed(name: str) -> str:
    return unicodedata.normalize("NFD", name)


class DetectorConformance(Conformance):
    """Tests for detectors."""

    kind = "detectors"

    def concepts(self, micro: Kit) -> tuple[Concept, ...]:
        """What it is asked about; overridden where the micro world's concepts mean nothing to it."""
        return micro.concepts

    def images(self, micro: Kit) -> Tensor:
        """Images it can judge: uint8, (N, 3, H, W), at least three."""
        return micro.images

    def exercise(self, micro: Kit, plugin: Any, seed: int = SEED) -> Any:
        """Everything it says of the images."""
        found = plugin.detect(self.images(micro).clone(), self.concepts(micro))
        return found.hits.tolist(), found.scores.tolist(), tuple(found.labels)

    def test_what_it_returns_is_a_detection(self, micro: Kit) -> None:
        """Shapes, kinds and ranges are those of :class:`Detection`."""
        from auditor._audit.run.scoring import problem_of as problem_of_detection

        images, concepts = self.images(micro), self.concepts(micro)
        assert (
            problem_of_detection(self.make().detect(images.clone(), concepts), len(images), len(concepts))
            is None
        )

    def test_it_leaves_its_images_alone(self, micro: Kit) -> None:
        """The images that it was given are as before."""
        import torch

        images = self.images(micro).clone()
        self.make().detect(images, self.concepts(micro))
        assert torch.equal(images, self.images(micro))

    def test_an_image_is_scored_as_if_alone(self, micro: Kit) -> None:
        """What it says of an image does not hang on the others in the batch."""
        import numpy as np

        plugin, images, concepts = self.make(), self.images(micro), self.concepts(micro)
        together = plugin.detect(images.clone(), concepts)
        for row in range(3):
            alone = plugin.detect(images[row : row + 1].clone(), concepts)
            assert np.allclose(alone.scores[0], together.scores[row], atol=1e-3)
            assert (alone.hits[0] == together.hits[row]).all()

    def test_columns_follow_the_concepts(self, micro: Kit) -> None:
        """Concepts in another order give the columns in that order."""
        import numpy as np

        plugin, images, concepts = self.make(), self.images(micro), self.concepts(micro)
        forth, back = plugin.detect(images.clone(), concepts), plugin.detect(images.clone(), concepts[::-1])
        assert np.allclose(forth.scores, back.scores[:, ::-1], atol=1e-5)

    def test_names_are_what_a_text_encoder_reads(self, micro: Kit) -> None:
        """A concept is the same in capitals, with other blanks, and in another form of Unicode: a detector
        compares names by ``as_read``."""
        import numpy as np

        images, concepts = self.images(micro), self.concepts(micro)
        plain = self.make().detect(images.clone(), concepts)
        for write in (str.upper, lambda name: f" {name.replace(' ', '  ')}\t", _decomposed):
            other = [
                concept.model_copy(
                    update={"name": write(concept.name), "synonyms": tuple(map(write, concept.synonyms))}
                )
                for concept in concepts
            ]
            found = self.make().detect(images.clone(), other)
            assert (found.hits == plain.hits).all(), "a name in another writing is another concept to it"
            assert np.allclose(found.scores, plain.scores, atol=1e-3)

    def test_other_sizes_are_fine(self, micro: Kit) -> None:
        """Images of other sizes are judged too."""
        from torch.nn.functional import interpolate

        images = interpolate(self.images(micro)[:2].float(), size=(96, 64)).to(self.images(micro).dtype)
        assert self.make().detect(images, self.concepts(micro)).hits.shape == (2, len(self.concepts(micro)))

    def test_its_fingerprint_is_stable(self) -> None:
        """Two instances name their weights alike."""
        first = self.make().fingerprint()
        assert isinstance(first, str) and self.make().fingerprint() == first
