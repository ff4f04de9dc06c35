"""Several detectors as one: each answers for the concepts of its domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from auditor._audit.evidence.decisions import label_of
from auditor._journal.lines import ScoreObservation
from auditor.errors import UsageError
from auditor.plugin._loader import make_plugin
from auditor.plugin.contracts import Detection, Detector, OptionsModel, Plugin
from auditor.policy import DetectorUse

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.policy import Concept


class ByDomainOptions(OptionsModel):
    """Who answers for what."""

    domains: dict[str, DetectorUse]
    """A detector with its options for each domain of the policy's concepts; ``other`` stands for all that
    are not named."""


class ByDomain(Detector):
    """Asks a specialist for each domain: a classifier of explicit images for what is erased, CLIP for what
    must stay.

    An image's label is that of the first domain whose detector saw something, else of the first domain asked.
    """

    name = "by-domain"
    summary = "another detector for each domain of concepts"
    Options: ClassVar[type[OptionsModel]] = ByDomainOptions

    def __init__(self, options: OptionsModel) -> None:
        super().__init__(options)
        self._detectors: dict[str, Detector] = {
            domain: make_plugin("detectors", use.use, use.options)
            for domain, use in self.options.domains.items()
        }

    def parts(self) -> tuple[Plugin, ...]:
        """Its detectors."""
        return tuple(self._detectors.values())

    def detect(self, images: Tensor, concepts: Sequence[Concept]) -> Detection:
        """Each domain's columns from its own detector."""
        from auditor._audit.run.observing import ask  # loads torch

        shape = (len(images), len(concepts))
        hits, scores, found = np.zeros(shape, bool), np.zeros(shape), np.ones(shape, bool)
        labels: list[str] = []
        says = False
        for domain in dict.fromkeys(concept.domain for concept in concepts):
            columns = [number for number, concept in enumerate(concepts) if concept.domain == domain]
            told = ask(self._of(domain), images, [concepts[number] for number in columns])
            labels = labels or [label_of(each) for each in told]
            for row, each in enumerate(told):
                if not isinstance(each, ScoreObservation):
                    raise UsageError(
                        f"The detector by-domain asks for scores, and that of '{domain}' gives none."
                    )
                hits[row, columns], scores[row, columns] = (
                    list(each.hits.values()),
                    list(each.scores.values()),
                )
                if each.found is not None:
                    found[row, columns], says = list(each.found.values()), True
                if any(each.hits.values()):
                    labels[row] = each.label
        return Detection(hits, scores, tuple(labels), found if says else None)

    def _of(self, domain: str) -> Detector:
        detector = self._detectors.get(domain) or self._detectors.get("other")
        if detector is None:
            raise UsageError(
                f"The detector by-domain has none for the domain '{domain}'; add it, or 'other', to its "
                "domains."
            )
        return detector
