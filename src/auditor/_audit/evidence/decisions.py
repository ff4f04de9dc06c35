"""From what detectors said of an image to seen, not seen, or nothing: the policy's decision, applied when a
journal is counted.

The journal keeps what was said as it was said, so another threshold can be looked at without drawing an
image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from auditor._audit.evidence.sequential_tests import MISSING
from auditor._journal.lines import (
    AnswerObservation,
    BoxesObservation,
    LabelObservation,
    Observation,
    ScoreObservation,
)
from auditor.errors import PluginError
from auditor.policy import Concept, Gate, Policy, as_read
from auditor.policy.decision import Decision

HIT, MISS = 1, 0
_SURE = 0.5  # of a box, where the policy says no threshold
_OWN = Decision()

Observations = Mapping[str, Observation]
"""What was said of one image, by detector."""


class Decisions:
    """How one policy reads what its detectors say; with ``gate`` as another gate would."""

    def __init__(self, policy: Policy, gate: Gate | None = None) -> None:
        self._gate = gate or policy.gate
        self.gate = self._gate.detector or policy.gate_detector
        """The detector that decides; of several that vote, the one whose label and score are shown."""
        self._names = {concept.name: names_of(concept) for concept in (*policy.erase, *policy.retain)}

    @property
    def deciding(self) -> tuple[str, ...]:
        """The detectors whose answers the decision rests on."""
        vote = self._gate.decision.vote
        return (self.gate,) if vote is None else vote.detectors

    @property
    def is_its_own(self) -> bool:
        """Is the gate's decision what its detector says itself?"""
        return self._gate.decision == _OWN

    def refuse_scoreless(self, said: Observations) -> None:
        """Raise :class:`PluginError` where the policy's decision is about scores, and the gate gives none."""
        observation = said.get(self.gate)
        if self._gate.decision.bounds is not None and isinstance(
            observation, LabelObservation | AnswerObservation
        ):
            raise PluginError(
                f"The detector '{self.gate}' gives no scores, and the policy's decision is by score "
                f"({self._gate.decision.sentence}); leave 'gate.decision' out."
            )

    @property
    def sentence(self) -> str:
        """The gate in words."""
        return f"{self.gate}, {self._gate.decision.sentence}"

    def decided(self, said: Observations, concept: str) -> int:
        """Does the gate see ``concept``: 1, 0, or MISSING?"""
        vote = self._gate.decision.vote
        if vote is None:
            return self._of(said, self.gate, concept, self._gate.decision)
        votes = [self.of(name, said, concept) for name in vote.detectors]
        if votes.count(HIT) >= vote.at_least:
            return HIT
        return MISS if len(votes) - votes.count(MISS) < vote.at_least else MISSING

    def of(self, detector: str, said: Observations, concept: str) -> int:
        """Does one detector see ``concept``, as it says itself?"""
        return self._of(said, detector, concept, _OWN)

    def label(self, said: Observations) -> str:
        """The gate's first choice, for people to read; empty where it has none."""
        return label_of(said[self.gate]) if self.gate in said else ""

    def score(self, said: Observations, concept: str) -> float | None:
        """The gate's score for ``concept``; None where it gives none."""
        return None if self.gate not in said else score_of(said[self.gate], self._names[concept], concept)

    def found(self, said: Observations, concept: str) -> bool | None:
        """Was there anything for the gate to judge? None where it does not say."""
        observation = said.get(self.gate)
        known = observation.found if isinstance(observation, ScoreObservation) else None
        return None if known is None else known.get(concept)

    def settled(self, said: Observations, concepts: Iterable[str]) -> dict[str, tuple[object, ...]]:
        """What must be the same when the same image is shown again: by detector, how each concept is
        decided."""
        asked = list(concepts)
        found: dict[str, tuple[object, ...]] = {}
        for name, observation in said.items():
            own = [self._of(said, name, concept, _OWN) for concept in asked]
            gate = [self._of(said, name, c, self._gate.decision) for c in asked] if name == self.gate else []
            there = observation.found if isinstance(observation, ScoreObservation) else None
            found[name] = (*own, *gate, *((there or {}).get(concept) for concept in asked))
        return found

    def _of(self, said: Observations, detector: str, concept: str, decision: Decision) -> int:
        if detector not in said:
            return MISSING
        return decide(said[detector], concept, self._names[concept], decision.bounds)


def names_of(concept: Concept) -> frozenset[str]:
    """What a label may read to stand for ``concept``."""
    return frozenset(as_read(name) for name in (concept.name, *concept.synonyms))


def decide(
    observation: Observation, concept: str, names: frozenset[str], bounds: tuple[float, float] | None = None
) -> int:
    """Does an image show ``concept``: 1, 0, or MISSING? ``bounds`` are those of
    :attr:`~auditor.policy.decision.Decision.bounds`; an observation without a score is missing under
    them. Where there was nothing to judge, nothing is seen."""
    if isinstance(observation, ScoreObservation) and not (observation.found or {}).get(concept, True):
        return MISS
    if bounds is not None or isinstance(observation, BoxesObservation):
        score = score_of(observation, names, concept)
        low, high = bounds or (_SURE, _SURE)
        return MISSING if score is None else HIT if score >= high else MISS if score < low else MISSING
    match observation:
        case ScoreObservation():
            return int(observation.hits[concept]) if concept in observation.hits else MISSING
        case LabelObservation():
            return int(as_read(observation.label) in names)
        case AnswerObservation():
            return _answer(observation.answers.get(concept, ""))


def asked_about(observation: Observation) -> set[str] | None:
    """The concepts that a detector was asked about; None where what it says is the same whatever it is
    asked."""
    match observation:
        case ScoreObservation():
            return set(observation.hits)
        case AnswerObservation():
            return set(observation.answers)
    return None


def score_of(observation: Observation, names: frozenset[str], concept: str) -> float | None:
    """The score for ``concept``, of boxes the highest; None where there is none."""
    if isinstance(observation, BoxesObservation):
        return max((box.score for box in observation.boxes if as_read(box.label) in names), default=0.0)
    return observation.scores.get(concept) if isinstance(observation, ScoreObservation) else None


def label_of(observation: Observation) -> str:
    """What people are shown of it."""
    match observation:
        case BoxesObservation():
            return ", ".join(dict.fromkeys(box.label for box in observation.boxes)) or "nothing"
        case AnswerObservation():
            return "; ".join(f"{concept}: {answer}" for concept, answer in observation.answers.items())[:200]
    return observation.label


def _answer(text: str) -> int:
    words = re.findall(r"\w+", as_read(text))
    return {"yes": HIT, "no": MISS}.get(words[0] if words else "", MISSING)
