"""Draws what the plan lays out, arm after arm, until the evidence decides: the only part that changes models.

Writes journal, images and trained arms, and nothing else. The erased model is never lent: each probe changes a copy, and what it
changed is looked at before an image is drawn from it. An arm that breaks becomes an error in the journal; the others go on, and
PASS is out of reach. What to draw next depends on the journal alone, so a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from auditor.arms import ArmStore, digest_of_arm, rebuilt
from auditor.diffusion.geometry import weight_distances
from auditor.diffusion.model import TextToImage, digest_of_weights
from auditor.diffusion.original import Original
from auditor.diffusion.sampling import batch_size, draw
from auditor.digest import sha256_json
from auditor.errors import AuditorError, PluginError, RefusedError, UsageError
from auditor.journal import (
    ArmLine,
    BatchLine,
    DistanceLine,
    ErrorLine,
    HalvedLine,
    Journal,
    Line,
    NoteLine,
    Sample,
    ShamLine,
    StartLine,
    StopLine,
)
from auditor.measuring import Measurer
from auditor.pictures import PictureCache, PictureStore, flaw_of
from auditor.plan import Arm, Plan, PlannedSample, Role, Seeds
from auditor.plugin import door
from auditor.plugin.contracts import ArmReady, BatchMeasured, Probe, RunStarted, Update
from auditor.plugin.loader import make_plugin
from auditor.plugin.observers import Observers
from auditor.plugin.watchdog import WATCHDOG
from auditor.policy import ProbeUse
from auditor.probing import allowed_changes, check_training, train
from auditor.progress import Progress
from auditor.scoring import Scorer
from auditor.second_look import Recheck, base_beside, known_positives
from auditor.seeds import training_seed
from auditor.tally import Tally, tally
from auditor.training import TrainingSet, ask_for_training_set, captions_of, make_training_set

_SHAM_STEPS = 2
_ROUNDING = 1e-6  # a relative change below it is float32's own


_NO_MEMORY = ("not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory")


class _Stop(BaseException):
    """The run ends before everything is decided, as the policy says. No ``except Exception`` of a plugin swallows it."""


class _Halved(Exception):  # noqa: N818 - a signal to plan the next batch anew, no error
    """Memory ran out, and the arm's batches are half as large from now on."""


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
        observers: Observers,
        manifest: str = "",
    ) -> None:
        self._manifest = manifest
        self._started = False
        """Has this process written a line yet?"""
        self.plan, self.seeds, self.policy = plan, seeds, plan.policy
        self.erased, self.base = erased, base
        self.progress, self.observers = progress, observers
        self._original = Original(erased)
        self.scorer = Scorer(plan)
        self.pictures, self.cache, self.arms = PictureStore(folder / "images"), PictureCache(cache), ArmStore(folder / "arms")
        self.measurer = Measurer(plan, self.pictures)
        self._stack = [version(name) for name in ("auditor", "torch", "diffusers", "transformers")] + [erased.device.type]
        self._began = time.monotonic()
        self._captions: list[str] = []
        self._current: str | None = None
        """The arm that is being made or drawn."""
        self._beside: str | None = None
        """``observers`` or ``metrics`` while they are called: no verdict rests on them."""
        self.drawn, self.drawing = 0, 0.0
        """Images that were really drawn in this call, and seconds spent on them."""

    def run(self, journal: Journal, before: Sequence[Line], started: RunStarted) -> Tally:
        """Draw and score what ``before``, the journal so far, leaves undecided. Returns the whole journal, counted."""
        self.journal, self.tally = journal, tally(self.plan, self.seeds, before)
        self._began, self._spent_before = time.monotonic(), self.tally.seconds
        if before and self.tally.manifest != self._manifest:
            self._start()
        minutes = self.policy.budget.plugin_minutes
        with WATCHDOG.waiting(None if minutes is None else 60 * minutes, self._time_out):
            self._tell("auditor_run_started", started)
            self._run_arms()
        return self.tally

    def _run_arms(self) -> None:
        self._captions = self._check_requests()
        self._compare()
        arms = {arm.name: arm for arm in self.plan.arms}
        if self.base is not None and not self.tally.distances:
            distances = weight_distances(self.base.unet, self.erased.unet)
            if distances["unet"][0] == 0 and digest_of_weights(self.base.text_encoder) == digest_of_weights(self.erased.text_encoder):
                raise RefusedError("The checkpoint is its base, value by value: nothing was erased.")
            self._write(DistanceLine(parts=distances))
        try:
            self._check_stop()
            for name, model in (("base", self.base), ("erased", self.erased)):
                if model is not None and not self._timed_out(arms[name]):
                    if name not in self.tally.arms or name in self.tally.broken:
                        self._write_arm(ArmLine(arm=name, seconds=0.0, weights=model.digest))
                    self._draw_arm(arms[name], model)
                if name == "base":
                    self.scorer.remember(known_positives(self.tally, self.pictures))
            for number in range(len(self.policy.probes)):
                self._run_probe(number, [arm for arm in self.plan.arms if arm.probe == number])
            self._repeat()
        except _Stop as stop:
            if self.tally.stopped != str(stop):
                unwritten = time.monotonic() - self._began - (self.tally.seconds - self._spent_before)
                self._write(StopLine(reason=str(stop), seconds=max(0.0, unwritten)))
            self.progress.stopped(str(stop))

    def _write(self, line: Line) -> None:
        if not self._started:
            self._start()
        self.journal.write(line)
        self.tally.add(line)

    def _start(self) -> None:
        """Say in the journal that what follows is this process's own."""
        self._started, line = True, StartLine(manifest=self._manifest)
        self.journal.write(line)
        self.tally.add(line)

    def _write_arm(self, line: ArmLine) -> None:
        self._write(line)
        self._tell("auditor_arm_ready", ArmReady(line.arm, line.weights, line.seconds))

    def _tell(self, hook: str, record: object) -> None:
        self._beside = "observers"
        if "observers" not in self.tally.silenced:
            for problem in self.observers.tell(hook, record):
                self._write(NoteLine(text=problem))
        self._beside = None

    def _time_out(self, sentence: str) -> None:
        """The last words of a process that waited in vain for a plugin, from the watchdog's thread."""
        if self._beside is not None:
            self.journal.write(NoteLine(text=f"{sentence}.", silenced=self._beside))
        elif self._current is not None:
            self.journal.write(ErrorLine(arm=self._current, message=f"{sentence}.", timeout=WATCHDOG.patience))

    def _timed_out(self, arm: Arm) -> bool:
        return self.tally.timed_out(arm.name, WATCHDOG.patience)

    def _compare(self) -> None:
        """Hold the checkpoint's text side against the base's, for every prompt and caption that is known so far."""
        if self.base is None:
            return
        compared = base_beside(self.base, self.erased, self.plan, self._captions)
        if compared.read_otherwise:
            self.progress.stage(f"out of reach: PASS: the tokenizer reads {compared.read_otherwise[0]!r} otherwise than the base's")
        if self.tally.compared != compared:
            self._write(compared)

    def _check_requests(self) -> list[str]:
        """Refuse before anything is drawn what can be known to be wrong with a probe's training set (:class:`UsageError`).

        Returns the captions that will be trained on.
        """
        captions: list[str] = []
        for number, name in enumerate(self.plan.probe_names):
            last = next(arm for arm in reversed(self.plan.arms) if arm.probe == number)
            if self._timed_out(last):
                continue
            self._current = last.name
            with contextlib.suppress(PluginError):  # a plugin that breaks becomes an error of its arms when they are made
                wanted = ask_for_training_set(self._probe(number), name, self.policy, self.seeds, has_base=self.base is not None)
                captions += captions_of(wanted)
        self._current = None
        return captions

    def _probe(self, number: int) -> Probe:
        use = self.policy.probes[number]
        probe: Probe = make_plugin("probes", use.use, use.options)
        return probe

    def _check_stop(self) -> None:
        if self.policy.on_fail == "stop" and self.tally.evidence().fail_is_proven():
            raise _Stop("on_fail: stop, and FAIL is proven")
        self._check_minutes()

    def _check_minutes(self) -> None:
        minutes = self.policy.budget.minutes
        if minutes is not None and self._spent_before + time.monotonic() - self._began > 60 * minutes:
            raise _Stop(f"budget.minutes: {minutes:g} minutes were spent")

    # -- drawing -----------------------------------------------------------------------------------------------------

    def _draw_arm(self, arm: Arm, model: TextToImage) -> None:
        """Draw batches until no cell of the arm wants more; first again what could not be scored when it was drawn."""
        self.progress.arm_started(arm.name, sum(len(self.tally.drawn(cell)) for cell in self.plan.cells_of(arm.name)))
        with self._breaking(arm):
            for batch in self.tally.failed_batches(arm.name):
                size = self._batch_size(arm, model)
                for start in range(0, len(batch), size):
                    with contextlib.suppress(_Halved):  # then its samples stay unscored until the next call
                        self._draw_batch(arm, model, batch[start : start + size])
            while batch := self.tally.next_batch(self.tally.evidence(), arm.name, self._batch_size(arm, model)):
                self._check_stop()
                retained = [sample.index for sample in batch if sample.cell.role is Role.RETAINED]
                if arm.name != "base" and self.base is not None and retained:
                    self._draw_base_up_to(max(retained) + 1)
                with contextlib.suppress(_Halved):
                    self._draw_batch(arm, model, batch)
        self._beside = "metrics"
        if "metrics" not in self.tally.silenced:
            for line in self.measurer.measure(self.tally, arm.name):
                self._write(line)
        self._beside = None
        self.progress.arm_ended(arm.name)

    def _batch_size(self, arm: Arm, model: TextToImage) -> int:
        return self.tally.batches.get(arm.name) or batch_size(model, self.policy.sampler)

    def _draw_base_up_to(self, rounds: int) -> None:
        """The base's partners of an arm's retained images: drawn only as far as an arm needs them."""
        cell, base = self.plan.cell("base", Role.RETAINED), self.base
        assert cell is not None and base is not None
        while todo := self.tally.missing_before(cell, rounds)[: self._batch_size(self.plan.arms[0], base)]:
            with contextlib.suppress(_Halved):
                self._draw_batch(self.plan.arms[0], base, todo)

    def _draw_batch(self, arm: Arm, model: TextToImage, batch: Sequence[PlannedSample]) -> None:
        """Draw, look for flaws, score, and write one line."""
        began = time.monotonic()
        prompts, seeds = [sample.prompt for sample in batch], [sample.seed for sample in batch]
        images, finite, cached = self._pictures_of(arm, model, prompts, seeds)
        flaws = [flaw_of(image, sound) for image, sound in zip(images, finite, strict=True)]
        again = [row for row, flaw in enumerate(flaws) if flaw is not None]
        if again:  # once more with the same seeds, then it is missing
            redrawn, sound, _ = self._pictures_of(arm, model, [prompts[row] for row in again], [seeds[row] for row in again])
            images[again] = redrawn
            for row, image, whole in zip(again, redrawn, sound, strict=True):
                flaws[row] = flaw_of(image, whole)
        good = [row for row, flaw in enumerate(flaws) if flaw is None]
        scored = dict(zip(good, self.scorer.score([batch[row] for row in good], images[good]), strict=True)) if good else {}
        samples = []
        for row, planned in enumerate(batch):
            scores = scored.get(row, {})
            samples.append(
                Sample(
                    cell=planned.cell.name,
                    prompt=planned.prompt,
                    index=planned.index,
                    seed=planned.seed,
                    image=self.pictures.save(images[row]) if flaws[row] is None else None,
                    flaw=flaws[row],
                    error=scores if isinstance(scores, str) else None,
                    scores={} if isinstance(scores, str) else scores,
                )
            )
        line = BatchLine(arm=arm.name, samples=tuple(samples), seconds=time.monotonic() - began, cached=cached)
        self._write(line)
        self._tell("auditor_batch_measured", BatchMeasured(arm.name, line.model_copy(deep=True).samples, line.seconds))
        self._report_batch(arm)

    def _report_batch(self, arm: Arm) -> None:
        evidence, cells = self.tally.evidence(), self.plan.cells_of(arm.name)
        readings = [evidence.read(cell) for cell in cells if cell.role is Role.GATE]
        drawn = sum(len(self.tally.drawn(cell)) for cell in cells)
        undecided = sum(evidence.rounds_wanted(cell) > 0 for cell in cells)
        self.progress.batch(arm.name, drawn, sum(r.hits[0] for r in readings), sum(r.images for r in readings), undecided)

    def _pictures_of(self, arm: Arm, model: TextToImage, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, list[bool], bool]:
        """(images, whether each is finite, whether all came from the cache).

        Memory that runs out halves the arm's batches, once, and raises ``_Halved``: what was planned is planned anew.
        """
        try:
            return self._base_pictures(prompts, seeds) if model is self.base else self._draw(model, prompts, seeds)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error) or arm.name in self.tally.batches or len(prompts) == 1:
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._write(HalvedLine(arm=arm.name, batch=(len(prompts) + 1) // 2))
        raise _Halved

    def _draw(self, model: TextToImage, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, list[bool], bool]:
        began = time.monotonic()
        images, finite = draw(model, prompts, seeds, self.policy.sampler)
        self.drawn, self.drawing = self.drawn + len(prompts), self.drawing + time.monotonic() - began
        return images, finite.tolist(), False

    def _base_pictures(self, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, list[bool], bool]:
        """From the cache where all of them are there."""
        assert self.base is not None
        sampler = self.policy.sampler.model_dump(mode="json", exclude={"batch"})
        keys = [sha256_json([self.base.digest, sampler, prompt, seed, self._stack]) for prompt, seed in zip(prompts, seeds, strict=True)]
        kept = [self.cache.load(key) for key in keys]
        found = [image for image in kept if image is not None]
        if len(found) == len(keys):
            return torch.stack(found), [True] * len(found), True
        images, finite, _ = self._draw(self.base, prompts, seeds)
        for key, image, sound in zip(keys, images, finite, strict=True):
            if flaw_of(image, sound) is None:
                self.cache.save(key, image)
        return images, finite, False

    def _base_examples(self, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, list[bool]]:
        base = self.plan.arms[0]
        parts, finite, start = list[Tensor](), list[bool](), 0
        while start < len(prompts):
            assert self.base is not None
            end = start + self._batch_size(base, self.base)
            self._check_minutes()
            with contextlib.suppress(_Halved):
                images, sound, _ = self._pictures_of(base, self.base, prompts[start:end], seeds[start:end])
                parts, finite, start = [*parts, images], [*finite, *sound], end
        return torch.cat(parts), finite

    # -- probing -----------------------------------------------------------------------------------------------------

    def _run_probe(self, number: int, arms: Sequence[Arm]) -> None:
        """Every replicate of one probe; one that breaks becomes an error, the others go on."""
        use, name = self.policy.probes[number], self.plan.probe_names[number]
        probe: Probe | None = None
        training: TrainingSet | None = None
        for replicate in range(1, use.replicates + 1):
            own = {arm.dose: arm for arm in arms if arm.replicate == replicate}
            last = own[use.doses[-1]]
            if self._is_closed(own) or any(self._timed_out(arm) for arm in own.values()):
                continue
            with self._breaking(last):
                if self._draw_kept(own):
                    continue
                probe = probe or self._probe(number)
                training = training or self._training_set(probe, name)
                check_training(probe, training)
                if name not in self.tally.shams:
                    self._run_sham(probe, name, use, training)
                self._run_replicate(probe, use, own, training, training_seed(self.seeds.audit, name, replicate))

    def _is_closed(self, own: dict[int, Arm]) -> bool:
        """Is every dose made, and does none want another image?"""
        evidence = self.tally.evidence()
        made = all(arm.name in self.tally.arms and arm.name not in self.tally.broken for arm in own.values())
        return made and not any(self.tally.failed_batches(arm.name) or evidence.turns(arm.name) for arm in own.values())

    def _draw_kept(self, own: dict[int, Arm]) -> bool:
        """Draw from arms that an earlier call trained and kept. False where one of them is not there."""
        lines = [self.tally.arms.get(arm.name) for arm in own.values()]
        if any(line is None or not self.arms.path(line.weights).exists() or line.arm in self.tally.broken for line in lines):
            return False
        for arm in own.values():
            model = self._kept(arm.name)
            if model is None:
                return False
            self._draw_arm(arm, model)
        return True

    def _kept(self, arm: str) -> TextToImage | None:
        """An arm as an earlier call trained and kept it; None where its weights are not there, or not the ones that were drawn from."""
        model = self._original.lend()
        return model if self.arms.restore(model, self.tally.arms[arm].weights) else None

    def _training_set(self, probe: Probe, name: str) -> TrainingSet:
        self.progress.stage(f"training set of {name}")
        examples = None if self.base is None else self._base_examples
        training, line = make_training_set(probe, name, self.policy, self.seeds, examples, self.scorer.gate)
        before = self.tally.training.get(name)
        if before is not None and before.digest != line.digest:
            raise UsageError(f"The training set of {name} changed since the run began; audit again in a new folder.")
        if before is None:
            self._write(line)
        new = {*training.captions, *training.held_out_captions} - set(self._captions)
        if new:  # of a probe that could not be asked before
            self._captions += sorted(new)
            self._compare()
        return training

    def _run_sham(self, probe: Probe, name: str, use: ProbeUse, training: TrainingSet) -> None:
        """Train at learning rate 0 and draw a batch of the erased arm again: every image must be the same, bit for bit."""
        if not probe.has_sham:
            self._write(ShamLine(probe=name, images=0, different=0, applicable=False))
            return
        fits = self._batch_size(next(arm for arm in self.plan.arms if arm.name == "erased"), self.erased)
        whole = self._whole_batches("erased", fits)
        if not whole:
            return
        began, samples = time.monotonic(), max(whole, key=len)
        self.progress.stage(f"sham of {name}")
        model, who = self._original.lend(), door.title(probe)
        allowed = allowed_changes(probe, use)
        on_step = self._signs_of_life(_SHAM_STEPS, door.call(probe, probe.training_calls, _SHAM_STEPS))
        update = Update(model, training.images.clone(), training.captions, use.method, (_SHAM_STEPS,), 0, True, on_step)
        different: int | None = None
        with closing(door.iterate(probe, door.call(probe, probe.update, update))) as steps:
            for dose in steps:
                if dose != _SHAM_STEPS or different is not None:
                    raise PluginError(f"{who} reached the dose {dose} of a sham; the only one is {_SHAM_STEPS}.")
                change = self._original.change(model, allowed, who, may_be_nothing=True)
                fresh = rebuilt(self._original, model, change, digest_of_arm(model))
                different = self._recheck().different(fresh, samples)
        if different is None:
            raise PluginError(f"{who} never reached the dose of its sham.")
        self._write(ShamLine(probe=name, images=len(samples), different=different, seconds=time.monotonic() - began))

    def _whole_batches(self, arm: str, most: int) -> list[tuple[Sample, ...]]:
        """Batches of an arm, of at most ``most`` images, none of which is missing."""
        drawn = [line.samples for line in self.tally.batch_lines(arm) if len(line.samples) <= most]
        return [samples for samples in drawn if samples and all(sample.image is not None for sample in samples)]

    def _run_replicate(self, probe: Probe, use: ProbeUse, arms: dict[int, Arm], training: TrainingSet, seed: int) -> None:
        """Train once, and draw every dose on the way."""
        last, least = arms[use.doses[-1]].name, self._least_change(probe, training)

        alive = self._signs_of_life(use.doses[-1], door.call(probe, probe.training_calls, use.doses[-1]))

        def on_step(step: int) -> None:
            alive(step)
            self.progress.step(last, step, use.doses[-1])

        with closing(train(probe, use, self._original, self.erased, training, seed, on_step, self.base)) as doses:
            for reached in doses:
                arm, weights = arms[reached.dose], digest_of_arm(reached.model)
                self.arms.keep(reached.model, reached.change.tensors, weights)
                line = ArmLine(
                    arm=arm.name,
                    seconds=reached.seconds,
                    weights=weights,
                    fit=reached.fit,
                    fit_before=reached.fit_before,
                    change=reached.change.relative if math.isfinite(reached.change.relative) else None,
                    least_change=least,
                    put_back=probe.puts_back,
                    idle=bool(probe.puts_back) and not reached.change.tensors,
                )
                self._write_arm(line)
                self._draw_arm(arm, rebuilt(self._original, reached.model, reached.change, weights))

    def _signs_of_life(self, dose: int, calls: int) -> Callable[[int], None]:
        """What a probe calls after a training step: a sign of life where the step's number rises, and is one that the dose takes."""
        last, most = 0, max(dose, calls)

        def on_step(step: int) -> None:
            nonlocal last
            if isinstance(step, int) and last < step <= most:
                last = step
                WATCHDOG.alive()
            self._check_minutes()

        return on_step

    # -- looking again -----------------------------------------------------------------------------------------------

    def _repeat(self) -> None:
        """After the last arm: what was seen and drawn first, once more (:class:`RepeatLine`)."""
        if self.tally.repeat is None and self.base is not None:
            self.progress.stage("looking again at what was seen and drawn first")
            whole = self._whole_batches("erased", self._batch_size(self.plan.arms[1], self.erased))
            self._write(self._recheck().repeat(whole, self.seeds.audit))

    @property
    def has_earlier(self) -> bool:
        """Does the verdict rest on what other processes wrote?"""
        return bool(self._earlier())

    def _earlier(self) -> list[BatchLine]:
        lines = self.tally.earlier_batches if self._started else self.tally.all_batches()
        return [line for line in lines if line.samples]

    def check_earlier(self, *, sealed: bool) -> None:
        """Look at what earlier processes left, before this one may say PASS (:class:`EarlierLine`).

        ``sealed``: every line before carries this gate's own seal, so there is nobody else's evidence to look at.
        """
        minutes, lines = self.policy.budget.plugin_minutes, self._earlier()
        with WATCHDOG.waiting(None if minutes is None else 60 * minutes, self._time_out):
            self.progress.stage(f"looking again at {sum(len(line.samples) for line in lines)} images of earlier processes")
            self._write(self._recheck().earlier(lines, sealed=sealed))

    def _recheck(self) -> Recheck:
        models = {"erased": self.erased} | ({} if self.base is None else {"base": self.base})
        return Recheck(self.tally, self.pictures, self.scorer, self._draw, lambda arm: models.get(arm) or self._kept(arm))

    def _least_change(self, probe: Probe, training: TrainingSet) -> float | None:
        """What an update without a training set must change at least; None where the held-out loss speaks for it."""
        if training.captions:
            return None
        least = door.call(probe, probe.least_change)
        if not isinstance(least, float) or not _ROUNDING <= least < float("inf"):
            raise PluginError(f"{door.title(probe)} trains on nothing and its least_change() is {least!r}; {_ROUNDING} or more is right.")
        return least

    @contextlib.contextmanager
    def _breaking(self, arm: Arm) -> Iterator[None]:
        """What breaks an arm is recorded and keeps PASS out of reach; the others go on. A disk or a refusal ends the whole run."""
        outer, self._current = self._current, arm.name
        try:
            yield
        except (OSError, RefusedError):
            raise
        except Exception as error:  # noqa: BLE001 - a plugin, torch or a bug of ours: an arm that breaks must not end the others
            message = str(error) if isinstance(error, AuditorError) else f"unexpected {type(error).__name__}: {error}"
            if _is_out_of_memory(error):
                message = "Memory ran out, also with half the batch; lower sampler.batch or the probe's, or use a larger machine."
            self._write(ErrorLine(arm=arm.name, message=message))
            self.progress.failed(arm.name, message)
        finally:
            self._current = outer


def _is_out_of_memory(error: BaseException) -> bool:
    """torch says so in its own class on a GPU and in words on a CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error).lower() for words in _NO_MEMORY)
