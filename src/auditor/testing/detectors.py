"""Tests that every detector must pass."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from auditor.testing.kit import Kit

if TYPE_CHECKING:
    from torch import Tensor

    from auditor._journal.lines import Observation
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
        return self._said(plugin, self.images(micro), self.concepts(micro))

    def _said(self, plugin: Any, images: Tensor, concepts: Sequence[Concept]) -> list[Observation]:
        from auditor._audit.run.observing import observations

        return observations(plugin.detect(images.clone(), concepts), [concept.name for concept in concepts])

    def _same(
        self,
        one: Observation,
        other: Observation,
        concepts: Sequence[Concept],
        called: Sequence[Concept],
        near: float,
    ) -> bool:
        """Is the same decided of every concept, with scores that are as near as that? ``called``: the same
        concepts by the names that ``other`` was asked with."""
        from auditor._audit.evidence.decisions import decide, names_of, score_of

        asked = [(one, concepts), (other, called)]
        decided, scores = (
            [[of(said, c.name, names_of(c)) for c in named] for said, named in asked]
            for of in (decide, lambda said, name, names: score_of(said, names, name) or 0.0)
        )
        pairs = zip(*scores, strict=True)
        return decided[0] == decided[1] and all(abs(a - b) <= near for a, b in pairs)

    def test_what_it_returns_keeps_the_contract(self, micro: Kit) -> None:
        """Shapes, kinds and ranges are those of what it returns: a Detection, Labels, Boxes or Answers."""
        from auditor._audit.run.observing import problem_of as problem_of_what_is_said

        images, concepts = self.images(micro), self.concepts(micro)
        said = self.make().detect(images.clone(), concepts)
        assert problem_of_what_is_said(said, len(images), len(concepts)) is None

    def test_it_leaves_its_images_alone(self, micro: Kit) -> None:
        """The images that it was given are as before."""
        import torch

        images = self.images(micro).clone()
        self.make().detect(images, self.concepts(micro))
        assert torch.equal(images, self.images(micro))

    def test_an_image_is_scored_as_if_alone(self, micro: Kit) -> None:
        """What it says of an image does not hang on the others in the batch."""
        plugin, images, concepts = self.make(), self.images(micro), self.concepts(micro)
        together = self._said(plugin, images, concepts)
        for row in range(3):
            (alone,) = self._said(plugin, images[row : row + 1], concepts)
            assert self._same(alone, together[row], concepts, concepts, 1e-3)

    def test_columns_follow_the_concepts(self, micro: Kit) -> None:
        """Concepts in another order give the columns in that order."""
        plugin, images, concepts = self.make(), self.images(micro), self.concepts(micro)
        forth, back = (self._said(plugin, images, order) for order in (concepts, concepts[::-1]))
        assert all(self._same(*pair, concepts, concepts, 1e-5) for pair in zip(forth, back, strict=True))

    def test_names_are_what_a_text_encoder_reads(self, micro: Kit) -> None:
        """A concept is the same in capitals, with other blanks, and in another form of Unicode: a detector
        compares names by ``as_read``."""
        images, concepts = self.images(micro), self.concepts(micro)
        plain = self._said(self.make(), images, concepts)
        for write in (str.upper, lambda name: f" {name.replace(' ', '  ')}\t", _decomposed):
            other = [
                concept.model_copy(
                    update={"name": write(concept.name), "synonyms": tuple(map(write, concept.synonyms))}
                )
                for concept in concepts
            ]
            found = self._said(self.make(), images, other)
            same = [self._same(*pair, concepts, other, 1e-3) for pair in zip(plain, found, strict=True)]
            assert all(same), "a name in another writing is another concept to it"

    def test_other_sizes_are_fine(self, micro: Kit) -> None:
        """Images of other sizes are judged too."""
        from torch.nn.functional import interpolate

        images = interpolate(self.images(micro)[:2].float(), size=(96, 64)).to(self.images(micro).dtype)
        assert len(self._said(self.make(), images, self.concepts(micro))) == 2

    def test_its_fingerprint_is_stable(self) -> None:
        """Two instances name their weights alike."""
        first = self.make().fingerprint()
        assert isinstance(first, str) and self.make().fingerprint() == first
