"""Measures one arm of a study: draws what was not drawn before, asks the detectors, computes the metrics,
and keeps all of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from auditor._audit.evidence.decisions import HIT, Decisions, Observations
from auditor._audit.evidence.sequential_tests import MISSING
from auditor._audit.run.measuring import bootstrap, features_of
from auditor._audit.run.scoring import Question, Scorer
from auditor._diffusion.drawing import draw_function, draw_in_batches
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.sampling import batch_size
from auditor._files.images import PictureCache, flaw_of
from auditor._study.expand import Expansion, StudyArm, StudySample
from auditor._study.store import ArmRecord, MetricValue, Outcome, Store, StudyProgress
from auditor.errors import ENDINGS, AuditorError, PluginError, UsageError, said
from auditor.plugin._loader import make_plugin
from auditor.plugin.contracts import Detector, ImageOutcome, Metric
from auditor.policy import Concept

_SCORED = 256
_SCORED_ROLES = ("erased", "synonym", "retained", "grid")


class ArmMeasurer:
    """What a study asks of every arm, with its detectors and metrics."""

    def __init__(self, plan: Expansion, store: Store, progress: StudyProgress) -> None:
        self.plan, self.study, self.store, self._progress = plan, plan.study, store, progress
        self._pictures = PictureCache(store.pictures)
        self.failures = 0
        """Arms and metrics that broke."""

    @cached_property
    def _detectors(self) -> list[tuple[str, Detector]]:
        return [(use.use, make_plugin("detectors", use.use, use.options)) for use in self.study.detectors]

    @cached_property
    def _metrics(self) -> list[tuple[Metric, dict[str, object]]]:
        return [(make_plugin("metrics", use.use, use.options), use.options) for use in self.study.metrics]

    def may_show(self, name: str, images: Tensor, concepts: Sequence[Concept]) -> NDArray[np.bool_]:
        """Where the first detector does not say that an image is without a concept: (N, C)."""
        scorer = Scorer(self.plan.policy(name), [self._detectors[0][1]])
        return scorer.may_show(images, concepts)

    def is_measured(self, arm: StudyArm) -> bool:
        """Are there outcomes and every metric?"""
        keys = [self.plan.metric_key(arm, metric.name, options) for metric, options in self._metrics]
        return self.store.has(self.plan.record_key(arm)) and all(
            self.store.metric(key) is not None for key in keys
        )

    def is_drawn(self, arm: StudyArm) -> bool:
        """Was it made before, and is every image of it kept? Then only detectors or metrics are new, and
        no model is needed."""
        keys = [self.plan.picture_key(arm, sample) for sample in self.plan.samples(arm.set)]
        return self.store.facts(arm.key) is not None and all(self._pictures.has(key) for key in keys)

    def measure(
        self,
        arm: StudyArm,
        title: str,
        model: Callable[[], DiffusionModel],
        facts: Callable[[], dict[str, object]] = dict,
        *,
        anew: bool = False,
    ) -> None:
        """Draw, score, and keep the outcomes and metrics of one arm."""
        samples, key = self.plan.samples(arm.set), self.plan.record_key(arm)
        record = self.store.read(key)
        if record is None:
            images, flaws, drawing = self.images(arm, samples, model, anew=anew)
            began = time.monotonic()
            outcomes = self._outcomes(arm.set, samples, images, flaws)
            known = facts() if anew else self.store.facts(arm.key) or facts()
            self.store.keep_facts(arm.key, known)
            content = {"outcomes": outcomes, "drawing": drawing, "scoring": time.monotonic() - began} | known
            # known is what the store kept, read from JSON
            record = ArmRecord.model_validate(content, strict=False)
            self.store.write(key, record)
        self._progress.arm(title, record)
        for metric, options in self._metrics:
            metric_key = self.plan.metric_key(arm, metric.name, options)
            if self.store.metric(metric_key) is None:
                with self.breaking(metric_key, f"{title} · {metric.name}"):
                    self._measure_metric(metric, options, metric_key, arm, record)

    def images(
        self,
        arm: StudyArm,
        samples: Sequence[StudySample],
        model: Callable[[], DiffusionModel],
        *,
        anew: bool = False,
    ) -> tuple[Tensor, list[str | None], float]:
        """Images of ``samples`` (uint8, (N, 3, H, W)), what is wrong with each, and the seconds that drawing
        took.

        With ``anew`` kept ones are not taken: an arm that was trained again shows images of one training, not
        of two.
        """
        keys = [self.plan.picture_key(arm, sample) for sample in samples]
        found = [None if anew else self._pictures.load(key) for key in keys]
        todo = [row for row, image in enumerate(found) if image is None]
        flaws = [None if image is None else flaw_of(image, True) for image in found]
        seconds = 0.0
        if todo:
            drawer = model()
            size = batch_size(drawer, self.study.sampler)
            prompts, seeds = [samples[row].prompt for row in todo], [samples[row].seed for row in todo]
            began = time.monotonic()
            for part, images, wrong in draw_in_batches(
                draw_function(drawer, self.study.sampler), prompts, seeds, size
            ):
                for row, image, flaw in zip(todo[part], images, wrong, strict=True):
                    found[row], flaws[row] = image, flaw
                    if flaw != "not finite":  # that cannot be seen from a picture
                        self._pictures.save(keys[row], image)
                self._progress.step("drawing", part.start + len(images), len(todo))
            seconds = time.monotonic() - began
        return torch.stack([image for image in found if image is not None]), flaws, seconds

    def _outcomes(
        self, name: str, samples: Sequence[StudySample], images: Tensor, flaws: Sequence[str | None]
    ) -> tuple[Outcome, ...]:
        """What every detector says of every image of a concept; a flawed image is missing, not "not
        detected".

        A batch that a detector breaks on is asked again image by image. Raises :class:`PluginError` where it
        cannot be asked about one alone either: the arm is measured again when the study goes on.
        """
        scorer = Scorer(self.plan.policy(name), [detector for _, detector in self._detectors])
        asked = [
            row for row, sample in enumerate(samples) if sample.role in _SCORED_ROLES and flaws[row] is None
        ]
        found = [Outcome(flaw=flaw) for flaw in flaws]
        for start in range(0, len(asked), _SCORED):
            rows = asked[start : start + _SCORED]
            answers = scorer.score([Question(samples[row].concept, True) for row in rows], images[rows])
            for row, answer in zip(rows, answers, strict=True):
                if answer.error is not None:  # kept images make another try cheap
                    raise PluginError(answer.error)
                found[row] = _outcome(scorer.decisions, answer.said, samples[row].concept)
        return tuple(found)

    def _measure_metric(
        self, metric: Metric, options: dict[str, object], key: str, arm: StudyArm, record: ArmRecord
    ) -> None:
        """One metric of an arm, beside the base's images of the same prompts and seeds."""
        base = replace(arm, erased=None, probe=None, dose=None, key=self.plan.base_arms()[0].key)
        other = self.store.read(self.plan.record_key(base))
        if other is None:
            raise AuditorError("The base was not measured, so there is nothing to compare with.")
        samples = self.plan.samples(arm.set)
        rows = [row for row, sample in enumerate(samples) if _is_measured_by(metric, sample)]
        rows = [row for row in rows if record.outcomes[row].flaw is None and other.outcomes[row].flaw is None]
        if not rows:
            raise UsageError(
                f"The metric '{metric.name}' has no images: give the study 'unrelated' prompts, or retained "
                "concepts."
            )
        chosen = [samples[row] for row in rows]
        own, reference = (
            self._features(metric, options, which, held.weights, chosen, [held.outcomes[row] for row in rows])
            for which, held in ((arm, record), (base, other))
        )
        strata = [sample.role for sample in chosen]
        value, lower, upper = bootstrap(metric, own, reference, [sample.prompt for sample in chosen], strata)
        self.store.keep_metric(key, MetricValue(images=len(rows), value=value, lower=lower, upper=upper))

    def _features(
        self,
        metric: Metric,
        options: dict[str, object],
        arm: StudyArm,
        weights: str | None,
        samples: Sequence[StudySample],
        outcomes: Sequence[Outcome],
    ) -> np.ndarray:
        """A row an image; kept, since the base's are wanted again by every arm."""
        key = self.plan.features_key(arm, weights, metric.name, options, samples)
        kept = None if metric.uses_outcomes else self.store.features(key)
        if kept is not None:
            return kept
        images, _, _ = self.images(arm, samples, never)
        gate = self._detectors[0][0]
        said = [
            ImageOutcome(sample.role, sample.concept, outcome.hits.get(gate, False))
            for sample, outcome in zip(samples, outcomes, strict=True)
        ]
        rows = features_of(metric, images, [sample.prompt for sample in samples], said)
        if not metric.uses_outcomes:
            self.store.keep_features(key, rows)
        return rows

    @contextmanager
    def breaking(self, key: str, title: str) -> Iterator[None]:
        """What breaks an arm or a metric is kept as its failure; the others go on. A full disk ends the
        whole study."""
        try:
            yield
        except (OSError, *ENDINGS):
            raise
        # a plugin, a panic in a library or a bug of ours: an arm that breaks must not end the others
        except BaseException as error:  # noqa: BLE001
            message = (
                said(error)
                if isinstance(error, AuditorError)
                else f"unexpected {type(error).__name__}: {said(error)}"
            )
            self.store.fail(key, message)
            self.failures += 1
            self._progress.failed(title, message)


def _outcome(decisions: Decisions, said: Observations, concept: str) -> Outcome:
    """What each detector says of one concept, as it says itself; one that decides nothing is left out."""
    each = {name: decisions.of(name, said, concept) for name in said}
    hits = {name: one == HIT for name, one in each.items() if one != MISSING}
    if decisions.gate not in hits:  # the first one's answer is what a study counts
        hits = {}
    return Outcome(hits=hits, score=decisions.score(said, concept), label=decisions.label(said))


def _is_measured_by(metric: Metric, sample: StudySample) -> bool:
    return (
        sample.role in ("erased", "synonym", "retained")
        if metric.uses_outcomes
        else sample.role == "unrelated"
    )


def never() -> DiffusionModel:
    """In place of a model, where everything was drawn before."""
    raise AuditorError(
        "An image that was kept is gone; remove the model state's record from the store and run the study "
        "again."
    )
