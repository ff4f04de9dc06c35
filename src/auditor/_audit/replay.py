"""Draws images of a run again and compares: were they really drawn from these weights, prompts and seeds?"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import torch

from auditor._audit.cells import PlannedSample, Weights
from auditor._audit.evidence.counts import Tally, tally
from auditor._audit.judge import judge_folder
from auditor._audit.progress import Progress
from auditor._audit.run.scoring import Scorer, question
from auditor._audit.run_folder.arms import ArmStore
from auditor._audit.run_folder.manifest import open_run, seal_of, threads_of
from auditor._checkpoint import Checkpoint, open_checkpoint
from auditor._checkpoint.load import in_precision, load_model
from auditor._diffusion.drawing import draw_function, draw_in_batches
from auditor._diffusion.original import Original
from auditor._files.images import PictureStore, from_png
from auditor._journal.file import Journal, read_journal
from auditor._journal.lines import BatchLine, ReplayLine
from auditor._journal.seal import read_key
from auditor._process.device import device_kind
from auditor._process.machine import torch_threads, versions
from auditor.errors import AuditorError, UsageError
from auditor.plugin.instruments import make_detectors
from auditor.report import CheckpointFacts, Report


def replay(
    out: Path,
    samples: int = 20,
    *,
    checkpoint: str | None = None,
    base: str | None = None,
    tolerance: int = 8,
    offline: bool = False,
    progress: Progress | None = None,
    seal: Path | None = None,
) -> Report:
    """Draw at least ``samples`` images of the run in ``out`` again, in whole batches spread over its arms,
    and note what was found.

    On another stack pixels may differ; up to ``tolerance`` of 255 counts as the same. A run that does not
    replay cannot PASS.

    ``checkpoint`` and ``base`` say where the weights lie now, if not where the run found them; their digests
    must be the run's. Trained arms come from the run's folder and are never trained again. The report is
    written anew, with the finding in it. With ``offline`` repositories on the Hub are taken from its cache
    alone.
    """
    run, progress = open_run(out), progress or Progress()
    key = None if seal is None else read_key(seal)
    signed = seal_of(run.manifest, key)
    counted = tally(run.plan, run.seeds, read_journal(out / "journal.jsonl", signed))
    dtype = run.plan.policy.sampler.dtype
    opened_base = None if run.base is None else _open(base or run.base.source, run.base, offline=offline)
    erased = load_model(
        _open(checkpoint or run.checkpoint.source, run.checkpoint, opened_base, offline=offline), dtype
    )
    models = {Weights.ERASED: erased}
    if opened_base is not None:
        models[Weights.BASE] = load_model(opened_base, dtype)
    kept, pictures, scorer = (
        ArmStore(out / "arms"),
        PictureStore(out / "images"),
        Scorer(run.plan.policy, make_detectors(run.plan.policy)),
    )
    original = Original(erased)
    found = _Comparison(pictures, scorer, counted)
    with torch_threads(threads_of(run.manifest)):
        for arm, line in _choose(counted, samples, run.seeds.audit):
            planned = run.plan.arm(arm)
            updated, sampler = planned.weights is Weights.UPDATED, run.plan.sampler_of(planned)
            model = original.fresh() if updated else models[planned.weights]
            progress.stage(f"{arm}: {len(line.samples)} images again")
            if updated and not kept.restore(model, counted.arms[arm].weights):
                raise UsageError(
                    f"{out} holds no sound weights of {arm}; audit again in a new folder to replay it."
                )
            prompts, seeds = (
                [sample.prompt for sample in line.samples],
                [sample.seed for sample in line.samples],
            )
            again = draw_function(in_precision(model, sampler.dtype), sampler)
            parts = [
                images for _, images, _ in draw_in_batches(again, prompts, seeds, line.rows or len(prompts))
            ]
            found.add(line, counted.composition(line), torch.cat(parts))
    if not found.images:
        raise UsageError(f"{out} holds no image that could be drawn again.")
    with Journal(out / "journal.jsonl", signed) as journal:
        journal.write(found.line(tolerance, versions(), device_kind()))
    return judge_folder(out, key)


def _open(
    source: str, facts: CheckpointFacts, base: Checkpoint | None = None, *, offline: bool
) -> Checkpoint:
    opened = open_checkpoint(source, base=base, offline=offline, chosen=facts.chosen)
    if opened.digest != facts.digest:
        raise UsageError(
            f"{source} is not what the run audited: its digest is {opened.digest[:12]}, the run's "
            f"{facts.digest[:12]}."
        )
    return opened


def _choose(counted: Tally, samples: int, seed: str) -> Iterator[tuple[str, BatchLine]]:
    """Batches at random, one from each arm in turn and the last arm first, until they hold enough images."""
    rng = random.Random(seed)  # noqa: S311 - reproducible on purpose
    arms = reversed(counted.plan.arms)
    queues = {
        arm.name: rng.sample(lines, len(lines)) for arm in arms if (lines := counted.batch_lines(arm.name))
    }
    chosen: dict[str, list[BatchLine]] = {arm: [] for arm in queues}
    left = samples
    while left > 0 and any(queues.values()):
        for arm, queue in queues.items():
            if queue and left > 0:
                chosen[arm].append(queue.pop())
                left -= len(chosen[arm][-1].samples)
    for arm, lines in chosen.items():
        yield from ((arm, line) for line in lines)


class _Comparison:
    """Counts what is the same."""

    def __init__(self, pictures: PictureStore, scorer: Scorer, counted: Tally) -> None:
        self._pictures, self._scorer, self._counted = pictures, scorer, counted
        self.images = self.identical = self.same_hits = self.largest = 0

    def add(self, line: BatchLine, batch: list[PlannedSample], images: torch.Tensor) -> None:
        """Compare one batch, image by image; images that were missing then are left out."""
        answers = self._scorer.score([question(planned) for planned in batch], images)
        for sample, image, answer in zip(line.samples, images, answers, strict=True):
            if sample.image is None or sample.error is not None:
                continue
            path = self._pictures.path(sample.image)
            if not path.is_file():
                raise AuditorError(f"{path} is missing: the run's images were changed after it was written.")
            self.images += 1
            if self._pictures.name(image) == sample.image:
                self.identical += 1
            else:
                difference = (image.int() - from_png(path.read_bytes()).int()).abs()
                self.largest = max(self.largest, int(difference.max()))
            decisions, asked = self._counted.decisions, self._counted.asked(sample)
            self.same_hits += answer.error is None and all(
                decisions.decided(answer.said, concept) == decisions.decided(sample.observations, concept)
                for concept in asked
            )

    def line(self, tolerance: int, versions: dict[str, str], device: str) -> ReplayLine:
        """What was found, for the journal."""
        return ReplayLine(
            images=self.images,
            identical=self.identical,
            largest_difference=self.largest,
            same_hits=self.same_hits,
            tolerance=tolerance,
            versions=versions,
            device=device,
        )
