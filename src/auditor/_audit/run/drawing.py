"""Draws and scores batches of images, and keeps them: for every arm, the base, and training sets."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from auditor._audit.cells import ERASED, FIRST_OF_ERASED, Arm, PlannedSample, Role, Weights
from auditor._audit.evidence.stopping import fail_is_proven, rounds_wanted
from auditor._audit.plan import Plan
from auditor._audit.run.measuring import Measurer
from auditor._audit.run.recorder import Deadline, Recorder, Stop
from auditor._audit.run.scoring import Answer, Scorer, question
from auditor._checkpoint.load import in_precision, precision_name
from auditor._diffusion.drawing import draw_checked
from auditor._diffusion.memory import free_memory, is_out_of_memory
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.sampling import batch_size, draw
from auditor._files.digest import sha256_json
from auditor._files.images import PictureCache, PictureStore, flaw_of
from auditor._files.places import sentence_at
from auditor._journal.lines import BatchLine, HalvedLine, NoteLine, Sample
from auditor._process.device import device_kind
from auditor._process.machine import versions
from auditor.plugin.instruments import Instruments
from auditor.plugin.records import BatchMeasured

_FEWEST_AGAIN = 4


class Halved(Exception):  # noqa: N818 - a signal to plan the next batch anew, no error
    """Memory ran out, and the arm's batches are half as large from now on."""


class Drawing:
    """Images of one run's models: drawn, looked at, scored, saved, and written down batch by batch."""

    def __init__(
        self,
        plan: Plan,
        instruments: Instruments,
        base: DiffusionModel | None,
        folder: Path,
        cache: Path | None,
        record: Recorder,
        deadline: Deadline,
    ) -> None:
        self.plan = plan
        self.policy = plan.policy
        self.base = base
        self.record = record
        self.deadline = deadline
        self.scorer = Scorer(self.policy, instruments.detectors)
        self.pictures = PictureStore(folder / "images")
        self.cache = PictureCache(cache)
        self._cache_refused = False
        self.measurer = Measurer(plan, instruments.metrics, self.pictures)
        self._stack = versions()
        self.calls = 0
        """Evaluations of the denoiser for images that were really drawn in this call."""
        self.seconds = 0.0
        """Spent on drawing them."""

    def check_stop(self) -> None:
        """Raise :class:`Stop` where the policy ends the run here."""
        self._stop_at_fail()
        self.deadline.check()

    def _stop_at_fail(self) -> None:
        if self.policy.on_fail == "stop" and fail_is_proven(self.record.tally.evidence()):
            raise Stop("on_fail: stop, and FAIL is proven")

    def draw_arm(self, arm: Arm, model: DiffusionModel) -> None:
        """Draw batches until no cell of the arm wants more; first again what could not be scored when it
        was drawn. Raises :class:`Stop` where FAIL is proven then and the policy ends the run at it, before
        anything else is trained or drawn."""
        self.record.progress.arm_started(
            arm.name, sum(len(self.record.tally.drawn(cell)) for cell in self.plan.cells_of(arm.name))
        )
        with self.record.breaking(arm):
            for batch in self.record.tally.failed_batches(arm.name):
                size = self.batch_size(arm, model)
                for start in range(0, len(batch), size):
                    with contextlib.suppress(Halved):  # then its samples stay unscored until the next call
                        self._draw_batch(arm, model, batch[start : start + size])
            while batch := self.record.tally.next_batch(
                self.record.tally.evidence(), arm.name, self._next_size(arm, model)
            ):
                self.check_stop()
                retained = [sample.index for sample in batch if sample.cell.role is Role.RETAINED]
                if arm.is_judged and self.base is not None and retained:
                    self._draw_base_up_to(self.plan.arm(arm.partner), max(retained) + 1)
                with contextlib.suppress(Halved):
                    self._draw_batch(arm, model, batch)
        self.record.beside = "metrics"
        if arm.update is None and "metrics" not in self.record.tally.silenced:
            for line in self.measurer.measure(self.record.tally, arm.name):
                self.record.write(line)
        self.record.beside = None
        self.record.progress.arm_ended(arm.name)
        self._stop_at_fail()

    def batch_size(self, arm: Arm, model: DiffusionModel) -> int:
        """Images at once: what fits, or what is left after memory ran out."""
        return self.record.tally.batches.get(arm.name) or batch_size(model, self.policy.sampler)

    def _next_size(self, arm: Arm, model: DiffusionModel) -> int:
        """Images of the next batch, at most. The erased arm's first is small: it is drawn again later."""
        size = self.batch_size(arm, model)
        is_first = arm.name == ERASED and not self.record.tally.batch_lines(arm.name)
        return min(size, FIRST_OF_ERASED) if is_first else size

    def _draw_base_up_to(self, partner: Arm, rounds: int) -> None:
        """The base's partners of an arm's retained images: drawn only as far as an arm needs them."""
        cell, base = self.plan.cell(partner.name, Role.RETAINED), self.base
        assert cell is not None and base is not None
        while todo := self.record.tally.missing_before(cell, rounds)[: self.batch_size(partner, base)]:
            with contextlib.suppress(Halved):
                self._draw_batch(partner, base, todo)

    def _draw_batch(self, arm: Arm, model: DiffusionModel, batch: Sequence[PlannedSample]) -> None:
        """Draw, look for flaws, score, and write one line."""
        began = time.monotonic()
        prompts, seeds = [sample.prompt for sample in batch], [sample.seed for sample in batch]
        kept = list[bool]()

        def pictures(prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, list[bool]]:
            images, finite, cached = self._pictures_of(arm, model, prompts, seeds)
            kept.append(cached)
            return images, finite

        images, flaws = draw_checked(pictures, prompts, seeds)
        good = [row for row, flaw in enumerate(flaws) if flaw is None]
        answers = self.scorer.score([question(batch[row]) for row in good], images[good]) if good else []
        said = dict(zip(good, answers, strict=True))
        names = self.pictures.save_all([images[row] for row in good])
        samples, saved = [], dict(zip(good, names, strict=True))
        for row, planned in enumerate(batch):
            answer = said.get(row, Answer())
            samples.append(
                Sample(
                    cell=planned.cell.name,
                    prompt=planned.prompt,
                    index=planned.index,
                    seed=planned.seed,
                    image=saved.get(row),
                    flaw=flaws[row],
                    error=answer.error,
                    observations=dict(answer.said),
                )
            )
        line = BatchLine(
            arm=arm.name,
            samples=tuple(samples),
            seconds=time.monotonic() - began,
            cached=kept[0],
            rows=self.batch_size(arm, model) if model.on_gpu else None,
        )
        self.record.write(line)
        self.record.tell(
            "auditor_batch_measured",
            BatchMeasured(arm.name, line.model_copy(deep=True).samples, line.seconds),
        )
        self._report_batch(arm)

    def _report_batch(self, arm: Arm) -> None:
        evidence, cells = self.record.tally.evidence(), self.plan.cells_of(arm.name)
        readings = [evidence.read(cell) for cell in cells if cell.role is Role.GATE]
        drawn = sum(len(self.record.tally.drawn(cell)) for cell in cells)
        undecided = sum(rounds_wanted(evidence, cell) > 0 for cell in cells)
        self.record.progress.batch(
            arm.name, drawn, sum(r.hits[0] for r in readings), sum(r.images for r in readings), undecided
        )

    def _pictures_of(
        self, arm: Arm, model: DiffusionModel, prompts: Sequence[str], seeds: Sequence[int]
    ) -> tuple[Tensor, list[bool], bool]:
        """(images, whether each is finite, whether all came from the cache).

        Memory that runs out halves the arm's batches and raises ``Halved``: what was planned is planned
        anew.
        """
        at_once = self.batch_size(arm, model) if model.on_gpu else len(prompts)
        try:
            return (
                self._base_pictures(arm, prompts, seeds)
                if arm.weights is Weights.BASE
                else self.draw(arm, model, prompts, seeds)
            )
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or at_once == 1:
                raise
        free_memory()
        self.record.write(HalvedLine(arm=arm.name, batch=(at_once + 1) // 2))
        raise Halved

    def draw(
        self,
        arm: Arm,
        model: DiffusionModel,
        prompts: Sequence[str],
        seeds: Sequence[int],
        rows: int | None = None,
    ) -> tuple[Tensor, list[bool], bool]:
        """Images of ``model`` as ``arm`` is drawn, ``rows`` at once on a GPU, whether each is finite, and
        False: none came from the cache."""
        began, sampler = time.monotonic(), self.plan.sampler_of(arm)
        rows = rows or self.batch_size(arm, model)
        images, finite = draw(in_precision(model, sampler.dtype), prompts, seeds, sampler, rows=rows)
        self.calls += sampler.calls * len(prompts)
        self.seconds += time.monotonic() - began
        return images, finite.tolist(), False

    def _base_pictures(
        self, arm: Arm, prompts: Sequence[str], seeds: Sequence[int]
    ) -> tuple[Tensor, list[bool], bool]:
        """From the cache where all of them are there."""
        assert self.base is not None
        usual = self.plan.sampler_of(arm)
        sampler = usual.model_dump(mode="json", exclude={"batch"})
        used = in_precision(self.base, usual.dtype)
        rows = [self.batch_size(arm, self.base)] if used.on_gpu else []
        made_by = [self._stack, device_kind(), precision_name(used), *rows]
        keys = [
            sha256_json([self.base.digest, sampler, prompt, seed, made_by])
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        kept = [self.cache.load(key) for key in keys]
        found = [image for image in kept if image is not None]
        if len(found) == len(keys):
            return torch.stack(found), [True] * len(found), True
        images, finite, _ = self.draw(arm, self.base, prompts, seeds)
        for key, image, sound in zip(keys, images, finite, strict=True):
            if flaw_of(image, sound) is None:
                self._keep(key, image)
        return images, finite, False

    def _keep(self, key: str, image: Tensor) -> None:
        """Keep a picture of the base for later audits; a cache that cannot be written is done without."""
        try:
            if not self._cache_refused:
                self.cache.save(key, image)
        except OSError as error:
            self._cache_refused = True
            why = sentence_at(error, self.cache.folder or Path())
            self.record.write(NoteLine(text=f"Pictures of the base are not kept for later audits: {why}"))

    def base_examples(self, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, list[bool]]:
        """Images of the base for a training set, and whether each is finite."""
        base = self.plan.arms[0]
        parts, finite, start = list[Tensor](), list[bool](), 0
        while start < len(prompts):
            assert self.base is not None
            end = start + self.batch_size(base, self.base)
            self.deadline.check()
            with contextlib.suppress(Halved):
                images, sound, _ = self._pictures_of(base, self.base, prompts[start:end], seeds[start:end])
                parts, finite, start = [*parts, images], [*finite, *sound], end
        return torch.cat(parts), finite

    def smallest_batch(self, arm: str, model: DiffusionModel) -> BatchLine | None:
        """The smallest batch of an arm that may be drawn again: one of at least four images, if there is one,
        none of which is missing, that this kind of device drew."""
        lines = self.record.tally.batch_lines(arm, self.record.device)
        most = self.batch_size(self.plan.arm(arm), model)
        whole = sorted(
            (
                line
                for line in lines
                if 0 < len(line.samples) <= most
                and (line.rows or 0) <= most
                and all(s.image is not None for s in line.samples)
            ),
            key=lambda line: len(line.samples),
        )
        return next(
            (line for line in whole if len(line.samples) >= _FEWEST_AGAIN), whole[-1] if whole else None
        )
