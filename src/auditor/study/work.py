"""Does what a study takes and the store does not hold yet: the only part of a study that touches a model.

The unit of work is an erased checkpoint with all its arms. It is made once, kept as the tensors that changed, and each probe trains a
copy of it. Several processes may work on one store: each takes the next unit that nobody holds. What is cut short loses at most the
training of one arm and the batch that was being drawn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from auditor.arms import digest_of_arm
from auditor.checkpoint import Checkpoint, open_checkpoint
from auditor.checkpoint.load import load_model, precision_of
from auditor.diffusion.geometry import weight_distances
from auditor.diffusion.model import TextToImage
from auditor.diffusion.original import Original
from auditor.diffusion.sampling import batch_size, draw
from auditor.erasing import erase
from auditor.errors import AuditorError, UsageError
from auditor.measuring import bootstrap, features_of
from auditor.pictures import PictureCache, flaw_of
from auditor.plugin.contracts import Detection, Detector, ImageOutcome, Metric, Probe
from auditor.plugin.loader import make_plugin
from auditor.plugin.watchdog import WATCHDOG
from auditor.policy import Concept, ProbeUse
from auditor.probing import check_training, train
from auditor.scoring import ask
from auditor.study.expand import Chosen, Erased, Expansion, StudyArm, StudySample
from auditor.study.store import ArmRecord, MetricValue, Outcome, Store, StudyProgress
from auditor.training import TrainingSet, make_training_set

_SCORED = 256
_SCORED_ROLES = ("erased", "synonym", "retained", "grid")
_PAUSE = 0.5


@dataclass(frozen=True)
class _Unit:
    """What one process does at a time."""

    key: str
    title: str
    arms: tuple[StudyArm, ...]
    do: Callable[[], None]


class Worker:
    """One process at work on a study."""

    def __init__(self, plan: Expansion, store: Store, opened: Checkpoint, base: TextToImage, progress: StudyProgress) -> None:
        self.plan, self.study, self.store = plan, plan.study, store
        base = replace(base, precision=precision_of(self.study.sampler.dtype, base.device))
        self._opened, self._base, self._progress = opened, base, progress
        self._base_original = Original(base)
        self._pictures = PictureCache(store.pictures)
        self._trained_on: dict[tuple[str, str], tuple[Probe, TrainingSet, tuple[str, ...]]] = {}
        self.failures = 0

    @cached_property
    def _detectors(self) -> list[tuple[str, Detector]]:
        return [(use.use, make_plugin("detectors", use.use, use.options)) for use in self.study.detectors]

    @cached_property
    def _metrics(self) -> list[tuple[Metric, dict[str, object]]]:
        return [(make_plugin("metrics", use.use, use.options), use.options) for use in self.study.metrics]

    def run(self, choose: Callable[[], Chosen]) -> None:
        """Everything: the base, the strengths to choose from, then every checkpoint. ``choose`` reads the store in between."""
        with WATCHDOG.waiting(None, lambda sentence: None):
            self._work([self._base_unit(arm) for arm in self.plan.base_arms()])
            self._work([self._unit(erased, probed=False) for erased in self.plan.candidates()])
            self._work([self._unit(erased, probed=True) for erased in self.plan.checkpoints(choose())])

    # -- units -------------------------------------------------------------------------------------------------------

    def _work(self, units: Sequence[_Unit]) -> None:
        """Do every unit that is not done and that nobody else does; wait for those."""
        total, waiting, told = len(units), list(units), False
        while waiting:
            taken = False
            for unit in list(waiting):
                if not self._is_done(unit):
                    with self.store.claim(unit.key) as mine:
                        if not mine:
                            continue
                        if not self._is_done(unit):
                            self._progress.unit(unit.title, total - len(waiting), total)
                            unit.do()
                waiting.remove(unit)
                taken = True
            if waiting and not taken:
                if not told:
                    self._progress.waiting(len(waiting))
                told = True
                time.sleep(_PAUSE)

    def _is_done(self, unit: _Unit) -> bool:
        return all(self._is_measured(arm) for arm in unit.arms)

    def _is_measured(self, arm: StudyArm) -> bool:
        keys = [self.plan.metric_key(arm, metric.name, options) for metric, options in self._metrics]
        return self.store.has(self.plan.record_key(arm)) and all(self.store.metric(key) is not None for key in keys)

    def _base_unit(self, arm: StudyArm) -> _Unit:
        def do() -> None:
            with self._breaking(self.plan.record_key(arm), f"{arm.set} · base"):
                self._measure(arm, f"{arm.set} · base", lambda: self._base)

        return _Unit(f"base-{self.plan.record_key(arm)}", f"{arm.set} · base", (arm,), do)

    def _unit(self, erased: Erased, *, probed: bool) -> _Unit:
        first = self.plan.erased_arm(erased)
        probes = self.plan.probe_arms(erased) if probed else {}
        arms = (first, *(arm for _, doses in probes.values() for arm in doses))

        def do() -> None:
            self._do(erased, first, probes)

        return _Unit(erased.key, erased.title, arms, do)

    def _do(self, erased: Erased, first: StudyArm, probes: dict[str, tuple[ProbeUse, tuple[StudyArm, ...]]]) -> None:
        made = _Made(lambda: self._checkpoint(erased))
        if not self._is_measured(first):
            with self._breaking(self.plan.record_key(first), erased.title):
                self._measure(first, erased.title, lambda: made.model, lambda: self._of_checkpoint(made))
        for name, (use, doses) in probes.items():
            if all(self._is_measured(arm) for arm in doses):
                continue
            with self._breaking(self.plan.record_key(doses[-1]), f"{erased.title} · {name}"):
                if not self._measure_kept(doses, f"{erased.title} · {name}"):
                    self._probe(erased, name, use, doses, made)

    # -- checkpoints and probes --------------------------------------------------------------------------------------

    def _checkpoint(self, erased: Erased) -> tuple[TextToImage, float]:
        """The erased model, and the seconds it took to make; kept ones are read."""
        folder, use = self.store.checkpoint(erased.key), self.study.erasers[erased.eraser]
        changed, began = folder / "unet-changed.safetensors", time.monotonic()
        if changed.exists():
            opened = open_checkpoint(str(changed), base=self._opened)
            return replace(load_model(opened, self.study.sampler.dtype), digest=erased.key), 0.0
        model = replace(self._base_original.lend(), precision=torch.float32)
        options = use.resolved(erased.set, erased.strength)
        folder.parent.mkdir(parents=True, exist_ok=True)
        erase(
            (self._opened, model),
            self.plan.policy(erased.set),
            use.use,
            folder,
            options=options,
            seed=erased.replicate - 1,
            save="delta",
            on_step=self._progress.step,
        )
        model.forget_text_states()
        return replace(model, precision=self._base.precision, digest=erased.key), time.monotonic() - began

    def _of_checkpoint(self, made: _Made) -> dict[str, object]:
        model = made.model
        return {"making": made.seconds, "weights": digest_of_arm(model), "distances": weight_distances(self._base.unet, model.unet)}

    def _measure_kept(self, doses: Sequence[StudyArm], title: str) -> bool:
        """Measure arms all of whose images were drawn before: only detectors or metrics are new. False where one must be trained."""
        samples = self.plan.samples(doses[0].set)
        keys = [self.plan.picture_key(arm, sample) for arm in doses for sample in samples]
        if any(self.store.facts(arm.key) is None for arm in doses) or not all(self._pictures.has(key) for key in keys):
            return False
        for arm in doses:
            self._measure(arm, title, _never)
        return True

    def _probe(self, erased: Erased, name: str, use: ProbeUse, doses: Sequence[StudyArm], made: _Made) -> None:
        """Train once, and measure every dose on the way."""
        probe, training, concepts = self._training_set(erased.set, name, use)
        check_training(probe, training)
        arms, title = {arm.dose: arm for arm in doses}, f"{erased.title} · {name}"

        def on_step(step: int) -> None:
            WATCHDOG.alive()
            self._progress.step(f"training {name}", step, use.doses[-1])

        seed = self.plan.training_seed(name, erased.replicate)
        with closing(train(probe, use, made.original, made.model, training, seed, on_step)) as reached_doses:
            for reached in reached_doses:
                facts: dict[str, object] = {
                    "making": reached.seconds,
                    "weights": digest_of_arm(reached.model),
                    "fit_before": _mean(reached.fit_before),
                    "fit": _mean(reached.fit),
                    "change": reached.change.relative,
                    "trained_on": concepts,
                }
                model = reached.model
                label = f"{title} · {reached.dose}" if len(doses) > 1 else title
                self._measure(arms[reached.dose], label, lambda model=model: model, lambda facts=facts: facts, anew=True)  # type: ignore[misc]

    def _training_set(self, name: str, arm: str, use: ProbeUse) -> tuple[Probe, TrainingSet, tuple[str, ...]]:
        """A probe for one set of concepts, what it trains on, and the concepts in it: drawn by the base, once in a store.

        All replicates are trained by the probe that asked for the set, as in an audit: it may remember what it asked for.
        """
        if (name, arm) not in self._trained_on:
            probe: Probe = make_plugin("probes", use.use, use.options)
            policy, seeds = self.plan.policy(name), self.plan.seeds

            def drawn(prompts: Sequence[str], image_seeds: Sequence[int]) -> tuple[Tensor, list[bool]]:
                pairs = zip(prompts, image_seeds, strict=True)
                samples = [StudySample("unrelated", "", prompt, 0, seed) for prompt, seed in pairs]
                images, flaws, _ = self._images(self.plan.base_arms()[0], samples, lambda: self._base)
                return images, [flaw != "not finite" for flaw in flaws]

            def seen(images: Tensor, concepts: Sequence[Concept]) -> Detection:
                return ask(self._detectors[0][1], images, concepts)

            training, line = make_training_set(probe, arm, policy, seeds, drawn, seen)
            self._trained_on[name, arm] = probe, training, line.concepts
        return self._trained_on[name, arm]

    # -- measuring ---------------------------------------------------------------------------------------------------

    def _measure(
        self,
        arm: StudyArm,
        title: str,
        model: Callable[[], TextToImage],
        facts: Callable[[], dict[str, object]] = dict,
        *,
        anew: bool = False,
    ) -> None:
        """Draw, score, and keep the outcomes and metrics of one arm."""
        samples, key = self.plan.samples(arm.set), self.plan.record_key(arm)
        record = self.store.read(key)
        if record is None:
            images, flaws, drawing = self._images(arm, samples, model, anew=anew)
            began = time.monotonic()
            outcomes = self._outcomes(arm.set, samples, images, flaws)
            known = facts() if anew else self.store.facts(arm.key) or facts()
            self.store.keep_facts(arm.key, known)
            record = ArmRecord.model_validate({"outcomes": outcomes, "drawing": drawing, "scoring": time.monotonic() - began} | known)
            self.store.write(key, record)
        self._progress.arm(title, record)
        for metric, options in self._metrics:
            metric_key = self.plan.metric_key(arm, metric.name, options)
            if self.store.metric(metric_key) is None:
                with self._breaking(metric_key, f"{title} · {metric.name}"):
                    self._measure_metric(metric, options, metric_key, arm, record)

    def _images(
        self, arm: StudyArm, samples: Sequence[StudySample], model: Callable[[], TextToImage], *, anew: bool = False
    ) -> tuple[Tensor, list[str | None], float]:
        """Images of ``samples`` (uint8, (N, 3, H, W)), what is wrong with each, and the seconds that drawing took.

        With ``anew`` kept ones are not taken: an arm that was trained again shows images of one training, not of two.
        """
        keys = [self.plan.picture_key(arm, sample) for sample in samples]
        found = [None if anew else self._pictures.load(key) for key in keys]
        todo = [row for row, image in enumerate(found) if image is None]
        flaws: list[str | None] = [None] * len(samples)
        seconds = 0.0
        if todo:
            drawer = model()
            size = batch_size(drawer, self.study.sampler)
            for start in range(0, len(todo), size):
                rows, began = todo[start : start + size], time.monotonic()
                images, finite = draw(
                    drawer, [samples[row].prompt for row in rows], [samples[row].seed for row in rows], self.study.sampler
                )
                seconds += time.monotonic() - began
                for row, image, sound in zip(rows, images, finite.tolist(), strict=True):
                    found[row], flaws[row] = image, flaw_of(image, sound)
                    if flaws[row] is None:
                        self._pictures.save(keys[row], image)
                self._progress.step("drawing", start + len(rows), len(todo))
        return torch.stack([image for image in found if image is not None]), flaws, seconds

    def _outcomes(self, name: str, samples: Sequence[StudySample], images: Tensor, flaws: Sequence[str | None]) -> tuple[Outcome, ...]:
        """What every detector says of every image of a concept; a flawed image is missing, not "not detected"."""
        policy = self.plan.policy(name)
        concepts = (*policy.erase, *policy.retain)
        columns = {concept.name: number for number, concept in enumerate(concepts)}
        asked = [row for row, sample in enumerate(samples) if sample.role in _SCORED_ROLES and flaws[row] is None]
        found: list[Outcome] = [Outcome(flaw=flaw) for flaw in flaws]
        for start in range(0, len(asked), _SCORED):
            rows = asked[start : start + _SCORED]
            said = {title: ask(detector, images[rows], concepts) for title, detector in self._detectors}
            first = said[self._detectors[0][0]]
            for at, row in enumerate(rows):
                column = columns[samples[row].concept]
                hits = {title: bool(detection.hits[at, column]) for title, detection in said.items()}
                found[row] = Outcome(hits=hits, score=float(first.scores[at, column]), label=first.labels[at])
        return tuple(found)

    def _measure_metric(self, metric: Metric, options: dict[str, object], key: str, arm: StudyArm, record: ArmRecord) -> None:
        """One metric of an arm, beside the base's images of the same prompts and seeds."""
        base = replace(arm, erased=None, probe=None, dose=None, key=self.plan.base_arms()[0].key)
        other = self.store.read(self.plan.record_key(base))
        if other is None:
            raise AuditorError("The base was not measured, so there is nothing to compare with.")
        samples = self.plan.samples(arm.set)
        rows = [row for row, sample in enumerate(samples) if _is_measured_by(metric, sample)]
        rows = [row for row in rows if record.outcomes[row].flaw is None and other.outcomes[row].flaw is None]
        if not rows:
            raise UsageError(f"The metric '{metric.name}' has no images: give the study 'unrelated' prompts, or retained concepts.")
        chosen = [samples[row] for row in rows]
        own, reference = (
            self._features(metric, options, which, chosen, [held.outcomes[row] for row in rows])
            for which, held in ((arm, record), (base, other))
        )
        strata = [sample.role for sample in chosen]
        value, lower, upper = bootstrap(metric, own, reference, [sample.prompt for sample in chosen], strata)
        self.store.keep_metric(key, MetricValue(images=len(rows), value=value, lower=lower, upper=upper))

    def _features(
        self, metric: Metric, options: dict[str, object], arm: StudyArm, samples: Sequence[StudySample], outcomes: Sequence[Outcome]
    ) -> np.ndarray:
        """A row an image; kept, since the base's are wanted again by every arm."""
        key = self.plan.features_key(arm, metric.name, options, samples)
        kept = None if metric.uses_outcomes else self.store.features(key)
        if kept is not None:
            return kept
        images, _, _ = self._images(arm, samples, _never)
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
    def _breaking(self, key: str, title: str) -> Iterator[None]:
        """What breaks an arm or a metric is kept as its failure; the others go on. A full disk ends the whole study."""
        try:
            yield
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - a plugin, torch or a bug of ours: an arm that breaks must not end the others
            message = str(error) if isinstance(error, AuditorError) else f"unexpected {type(error).__name__}: {error}"
            self.store.fail(key, message)
            self.failures += 1
            self._progress.failed(title, message)


class _Made:
    """An erased checkpoint, made or read when it is first asked for."""

    def __init__(self, make: Callable[[], tuple[TextToImage, float]]) -> None:
        self._make = make
        self._failure: AuditorError | None = None

    @cached_property
    def _pair(self) -> tuple[TextToImage, float]:
        if self._failure is not None:  # it is not tried again for every probe
            raise self._failure
        try:
            return self._make()
        except AuditorError as error:
            self._failure = error
            raise

    @property
    def model(self) -> TextToImage:
        """The model; nobody changes it."""
        return self._pair[0]

    @property
    def seconds(self) -> float:
        """What making it took."""
        return self._pair[1]

    @cached_property
    def original(self) -> Original:
        """Lends copies of it."""
        return Original(self.model)


def _is_measured_by(metric: Metric, sample: StudySample) -> bool:
    return sample.role in ("erased", "synonym", "retained") if metric.uses_outcomes else sample.role == "unrelated"


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _never() -> TextToImage:
    raise AuditorError("An image that was kept is gone; remove the arm's record from the store and run the study again.")
