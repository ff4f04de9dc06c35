"""Draws what the plan lays out: the only part that changes models. Writes journal and images, and nothing else.

One UNet is in memory: probes change it in place, its erased weights are put back afterwards. An arm that breaks becomes an
error in the journal; the others go on, and PASS is out of reach.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from auditor.diffusion.finetune import Examples, denoising_losses
from auditor.diffusion.model import TextToImage, digest_of_weights
from auditor.diffusion.sampling import batch_size, draw
from auditor.digest import sha256_json
from auditor.errors import PluginError, UsageError
from auditor.examples import read_captioned_folder
from auditor.journal import ArmLine, BatchLine, ErrorLine, Journal, Line, Sample, Score, TrainingLine
from auditor.pictures import PictureCache, PictureStore, flaw_of
from auditor.plan import Arm, Plan, PlannedSample, Role, Seeds
from auditor.plugin import door
from auditor.plugin.contracts import Detection, Detector, Probe, ProbeSetting, TrainingRequest, Update
from auditor.plugin.loader import make_plugin
from auditor.policy import Concept, ProbeUse, forbidden_names
from auditor.progress import Progress
from auditor.seeds import choice_seed, example_seed, training_seed
from auditor.tally import tally

_HELD_OUT = 1  # further images of each prompt, for the control "potent"


Key = tuple[str, str, int, int]
"""What tells one planned image from another: cell, prompt, index, seed."""


@dataclass(frozen=True)
class TrainingSet:
    """What a probe trains on, and the held-out rest."""

    images: Tensor
    captions: tuple[str, ...]
    held_out_images: Tensor
    held_out_captions: tuple[str, ...]


class Runner:
    """One run: its models, detectors, journal and pictures."""

    def __init__(
        self,
        plan: Plan,
        seeds: Seeds,
        erased: TextToImage,
        base: TextToImage | None,
        folder: Path,
        cache: Path,
        progress: Progress,
    ) -> None:
        self.plan, self.seeds, self.policy = plan, seeds, plan.policy
        self.erased, self.base = erased, base
        self.progress = progress
        self.pictures = PictureStore(folder / "images")
        self.cache = PictureCache(cache)
        self._stack = [version(name) for name in ("auditor", "torch", "diffusers", "transformers")] + [erased.device.type]
        self._made: dict[str, str] = {}
        self.detectors: list[tuple[str, Detector]] = [
            (use.use, make_plugin("detectors", use.use, use.options)) for use in self.policy.detectors
        ]
        self._pristine = copy.deepcopy(erased.unet)

    def run(self, journal: Journal, before: Sequence[Line]) -> None:
        """Draw and score everything that ``before``, the journal so far, does not hold."""
        counted = tally(self.plan, self.seeds, before)
        done = {(s.cell, s.prompt, s.index, s.seed) for drawn in counted.cells.values() for o in drawn if (s := o.sample) is not None}
        self._made = {name: line.weights for name, line in counted.arms.items()}
        arms = {arm.name: arm for arm in self.plan.arms}
        if self.base is not None:
            self._draw_arm(arms["base"], self.base, journal, done)
        self._draw_arm(arms["erased"], self.erased, journal, done)
        for number in range(len(self.policy.probes)):
            probed = [arm for arm in self.plan.arms if arm.probe == number]
            if not all(self._is_drawn(arm, done) and arm.name in self._made for arm in probed):
                self._run_probe(number, probed, journal, done)
        self.progress.finished()

    # -- arms --------------------------------------------------------------------------------------------------------

    def _is_drawn(self, arm: Arm, done: set[Key]) -> bool:
        return all((s.cell.name, s.prompt, s.index, s.seed) in done for s in self.plan.samples(arm.name, self.seeds))

    def _draw_arm(self, arm: Arm, model: TextToImage, journal: Journal, done: set[Key]) -> None:
        planned = list(self.plan.samples(arm.name, self.seeds))
        size = batch_size(model, self.policy.sampler)
        batches = [planned[start : start + size] for start in range(0, len(planned), size)]
        todo = [batch for batch in batches if any((s.cell.name, s.prompt, s.index, s.seed) not in done for s in batch)]
        self.progress.arm_started(arm.name, len(planned), len(planned) - sum(map(len, todo)))
        for batch in todo:
            began = time.monotonic()
            images, finite, cached = self._pictures_of(arm, model, [s.prompt for s in batch], [s.seed for s in batch])
            try:
                samples = self._score(batch, images, finite)
            except PluginError as error:
                self._fail(journal, f"{arm.name}, {len(batch)} images", str(error))
                continue
            journal.write(BatchLine(arm=arm.name, samples=tuple(samples), seconds=time.monotonic() - began, cached=cached))
            gate = self.policy.detectors[0].use
            scored = [(s.scores[gate], p.cell) for s, p in zip(samples, batch, strict=True) if s.scores]
            judged = [score.hits[cell.concept] for score, cell in scored if cell.role is Role.GATE]
            self.progress.batch(arm.name, len(batch), sum(judged), len(judged))

    def _pictures_of(self, arm: Arm, model: TextToImage, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, list[bool], bool]:
        """Draw one batch; the base's images come from the cache where all of them are there."""
        if arm.name != "base":
            images, finite = draw(model, prompts, seeds, self.policy.sampler)
            return images, finite.tolist(), False
        return self._base_pictures(prompts, seeds)

    def _base_pictures(self, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, list[bool], bool]:
        assert self.base is not None
        sampler = self.policy.sampler.model_dump(mode="json", exclude={"batch"})
        keys = [sha256_json([self.base.digest, sampler, prompt, seed, self._stack]) for prompt, seed in zip(prompts, seeds, strict=True)]
        kept = [self.cache.load(key) for key in keys]
        found = [image for image in kept if image is not None]
        if len(found) == len(keys):
            return torch.stack(found), [True] * len(found), True
        images, finite = draw(self.base, prompts, seeds, self.policy.sampler)
        for key, image, sound in zip(keys, images, finite.tolist(), strict=True):
            if sound:
                self.cache.save(key, image)
        return images, finite.tolist(), False

    # -- detecting ---------------------------------------------------------------------------------------------------

    def _score(self, batch: Sequence[PlannedSample], images: Tensor, finite: Sequence[bool]) -> list[Sample]:
        concepts = [*self.policy.erase, *self.policy.retain]
        flaws = [flaw_of(image, sound) for image, sound in zip(images, finite, strict=True)]
        found = {name: self._detect(detector, images, concepts) for name, detector in self.detectors}
        column = {concept.name: number for number, concept in enumerate(concepts)}
        samples = []
        for row, planned in enumerate(batch):
            flaw = flaws[row]
            retained = planned.cell.role is Role.RETAINED
            asked = column if retained else {concept.name for concept in self.policy.erase}
            scores = {
                name: Score(
                    label=detection.labels[row],
                    hits={concept: bool(detection.hits[row, column[concept]]) for concept in sorted(asked)},
                    score=float(detection.scores[row, column[planned.cell.concept]]),
                )
                for name, detection in found.items()
                if flaw is None
            }
            samples.append(
                Sample(
                    cell=planned.cell.name,
                    prompt=planned.prompt,
                    index=planned.index,
                    seed=planned.seed,
                    image=self.pictures.save(images[row]) if flaw is None else None,
                    flaw=flaw,
                    scores=scores,
                )
            )
        return samples

    def _detect(self, detector: Detector, images: Tensor, concepts: Sequence[Concept]) -> Detection:
        """Ask one detector, and hold it to its contract."""
        detection = door.call(detector, detector.detect, images.clone(), concepts)
        shape = (len(images), len(concepts))
        problem = None
        if not isinstance(detection, Detection):
            problem = f"returned {type(detection).__name__}, not a Detection"
        elif np.shape(detection.hits) != shape or np.shape(detection.scores) != shape or len(tuple(detection.labels or ())) != len(images):
            problem = f"returned arrays of shape {np.shape(detection.hits)} and {np.shape(detection.scores)}; {shape} is right"
        elif np.asarray(detection.hits).dtype != bool:
            problem = "returned hits that are not bool"
        elif not all(isinstance(label, str) for label in detection.labels):
            problem = "returned labels that are not strings"
        elif not np.isfinite(detection.scores).all():
            problem = "returned scores that are not finite"
        elif (np.asarray(detection.scores) < 0).any() or (np.asarray(detection.scores) > 1).any():
            problem = "returned scores outside 0 to 1"
        if problem:
            raise PluginError(f"The detector '{detector.name}' {problem}.")
        return detection

    # -- probing -----------------------------------------------------------------------------------------------------

    def _run_probe(self, number: int, arms: Sequence[Arm], journal: Journal, done: set[Key]) -> None:
        """Every replicate of one probe; one that breaks becomes an error, the others go on."""
        use, name = self.policy.probes[number], self.plan.probe_names[number]
        probe: Probe = make_plugin("probes", use.use, use.options)
        try:
            training = self._training_set(probe, name, journal)
        except PluginError as error:
            self._fail(journal, name, str(error))
            return
        for replicate in range(1, use.replicates + 1):
            own = {arm.dose: arm for arm in arms if arm.replicate == replicate}
            try:
                self._run_replicate(probe, use, own, training, training_seed(self.seeds.audit, name, replicate), journal, done)
            except PluginError as error:
                self._fail(journal, own[use.doses[-1]].name, str(error))
            finally:
                self.erased.unet = copy.deepcopy(self._pristine)

    def _run_replicate(
        self, probe: Probe, use: ProbeUse, arms: dict[int, Arm], training: TrainingSet, seed: int, journal: Journal, done: set[Key]
    ) -> None:
        """Train once, and draw every dose on the way."""
        losses = self._held_out_losses(training, seed)
        before = losses()
        on_step = _stepper(self.progress, arms[use.doses[-1]].name, use.doses[-1])
        update = Update(self.erased, training.images.clone(), training.captions, use.method, use.doses, seed, on_step)
        began, reached = time.monotonic(), list[int]()
        with closing(door.iterate(probe, door.call(probe, probe.update, update))) as steps:
            for dose in steps:
                reached.append(dose)
                if reached != list(use.doses[: len(reached)]):
                    break
                arm, weights, after = arms[dose], digest_of_weights(self.erased.unet), losses()
                if self._made.get(arm.name, weights) != weights:
                    done -= {key for key in done if key[0].startswith(f"{arm.name}|")}  # drawn from other weights: drawn again
                self._made[arm.name] = weights
                journal.write(ArmLine(arm=arm.name, seconds=time.monotonic() - began, weights=weights, fit=after, fit_before=before))
                self._draw_arm(arm, self.erased, journal, done)
                began = time.monotonic()
        if reached != list(use.doses):
            raise PluginError(f"The probe '{probe.name}' reached the doses {reached}; the policy's are {list(use.doses)}.")

    def _held_out_losses(self, training: TrainingSet, seed: int) -> Callable[[], tuple[float, ...]]:
        """A function that measures the denoising losses of the model as it is; none at all if one of them is not a number."""
        if not training.held_out_captions:
            return tuple
        examples = Examples.of(self.erased, training.held_out_images, training.held_out_captions)

        def losses() -> tuple[float, ...]:
            values = denoising_losses(self.erased, examples, seed)
            return tuple(values.tolist()) if bool(values.isfinite().all()) else ()

        return losses

    def _training_set(self, probe: Probe, name: str, journal: Journal) -> TrainingSet:
        """Draw (or read) and screen what a probe trains on."""
        began = time.monotonic()
        self.progress.stage(f"training set of {name}")
        forbidden = forbidden_names(self.policy)
        setting = ProbeSetting(self.policy, choice_seed(self.seeds.shared, name.rsplit("-", 1)[0]), frozenset(forbidden))
        wanted = door.call(probe, probe.training_set, setting)
        concepts: tuple[str, ...] = ()
        if isinstance(wanted, Path):
            training = _split(*read_captioned_folder(wanted, self.policy.sampler.size))
        else:
            training, concepts = self._draw_examples(wanted), tuple(request.concept for request in wanted)
        captions = (*training.captions, *training.held_out_captions)
        for caption in captions:
            bad = next((word for word in forbidden if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", caption.casefold())), None)
            if bad:
                raise UsageError(f"The training set of {name} names '{bad}' in {caption!r}; erased and retained concepts must stay out.")
        hits = self._screen(name, torch.cat([training.images, training.held_out_images]) if captions else training.images)
        journal.write(
            TrainingLine(
                probe=name, concepts=concepts, images=len(training.captions), forbidden_hits=hits, seconds=time.monotonic() - began
            )
        )
        return training

    def _screen(self, name: str, images: Tensor) -> dict[str, int]:
        """How often the gate detector sees each erased concept in a training set; refused above max_false_positive."""
        if not len(images):
            return {}
        detector = self.detectors[0][1]
        hits = self._detect(detector, images, self.policy.erase).hits.sum(axis=0)
        counts = {concept.name: int(count) for concept, count in zip(self.policy.erase, hits, strict=True)}
        limit = self.policy.limits.max_false_positive
        for concept, count in counts.items():
            if count > limit * len(images):
                raise UsageError(
                    f"The training set of {name} shows '{concept}' in {count} of {len(images)} images by the detector "
                    f"(limit {limit:.0%}); it would not be a benign update. Choose other candidates."
                )
        return counts

    def _draw_examples(self, requests: Sequence[TrainingRequest]) -> TrainingSet:
        """The base draws every requested image, and one more a prompt to be held out."""
        if not requests:
            empty = torch.empty((0, 3, self.policy.sampler.size, self.policy.sampler.size), dtype=torch.uint8)
            return TrainingSet(empty, (), empty, ())
        if self.base is None:
            raise UsageError("The probes' training sets are drawn by the base; give one (--base) or a folder of captioned images.")
        wanted = [
            (template.format(request.concept), index, index < request.images_per_prompt, request.concept)
            for request in requests
            for template in request.prompts
            for index in range(request.images_per_prompt + _HELD_OUT)
        ]
        seeds = [example_seed(self.seeds.shared, concept, prompt, index) for prompt, index, _, concept in wanted]
        size = batch_size(self.base, self.policy.sampler)
        parts = []
        for start in range(0, len(wanted), size):
            images, finite, _ = self._base_pictures([prompt for prompt, *_ in wanted[start : start + size]], seeds[start : start + size])
            if not all(finite):
                raise PluginError("The base drew images that are not finite; its training sets cannot be used.")
            parts.append(images)
        images = torch.cat(parts)
        train = torch.tensor([is_train for _, _, is_train, _ in wanted])
        captions = [prompt for prompt, *_ in wanted]
        return TrainingSet(
            images[train],
            tuple(caption for caption, keep in zip(captions, train.tolist(), strict=True) if keep),
            images[~train],
            tuple(caption for caption, keep in zip(captions, train.tolist(), strict=True) if not keep),
        )

    def _fail(self, journal: Journal, where: str, message: str) -> None:
        journal.write(ErrorLine(where=where, message=message))
        self.progress.failed(where, message)


def _stepper(progress: Progress, arm: str, steps: int) -> Callable[[int], None]:
    return lambda step: progress.step(arm, step, steps)


def _split(images: Tensor, captions: Sequence[str]) -> TrainingSet:
    """Hold out every fifth captioned image of a user's folder."""
    held_out = torch.arange(len(captions)) % 5 == 4
    return TrainingSet(
        images[~held_out],
        tuple(caption for number, caption in enumerate(captions) if number % 5 != 4),
        images[held_out],
        tuple(caption for number, caption in enumerate(captions) if number % 5 == 4),
    )
