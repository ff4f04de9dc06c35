"""What an audit looks at again, or beside the base, so that nothing that was believed at its start goes
unasked at its end."""

from __future__ import annotations

import json
import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from auditor._audit.cells import BASE, ERASED, Arm, Role
from auditor._audit.evidence.counts import Tally
from auditor._audit.evidence.decisions import HIT
from auditor._audit.plan import Plan
from auditor._audit.run.scoring import Answer, Known, Scorer, question
from auditor._diffusion.model import DiffusionModel, configuration_of
from auditor._files.images import PictureStore
from auditor._journal.lines import BatchLine, ComparedLine, EarlierLine, RepeatLine, Sample

EARLIER_DRAWN = 60
"""Images of earlier processes that are drawn again, at least, where there are so many, beside one batch of
every arm."""
TOLERANCE = 8
"""Of 255 in any pixel: what counts as the same image where it was drawn in other company."""
_SHOWN_AT_ONCE = 64
_SHOWN_OF_A_CONCEPT = 4
_KNOWN_OF_A_CONCEPT = 2


def base_beside(
    base: DiffusionModel, erased: DiffusionModel, plan: Plan, captions: Sequence[str]
) -> ComparedLine:
    """How the audited model reads every audited prompt and training caption, and what it holds beside its
    UNet, each beside the base's."""
    prompts = list(
        dict.fromkeys(["", *(prompt for cell in plan.cells for prompt in cell.prompts), *captions])
    )
    ours, theirs = erased.token_ids(prompts).cpu(), base.token_ids(prompts).cpu()
    if ours.shape == theirs.shape:
        otherwise = tuple(
            prompt
            for prompt, one, other in zip(prompts, ours, theirs, strict=True)
            if not torch.equal(one, other)
        )
    else:
        otherwise = tuple(prompts)
    same = _words(base) == _words(erased)
    beside = (*erased.family.text, erased.family.decoder)
    parts = {name: _distance(base.parts[name], erased.parts[name]) for name in beside}
    keys = sorted({*base.scheduler_config, *erased.scheduler_config})
    pairs = {key: (base.scheduler_config.get(key), erased.scheduler_config.get(key)) for key in keys}
    schedule = {key: f"{before} → {now}"[:200] for key, (before, now) in pairs.items() if before != now}
    settings = configuration_of(base.denoiser), configuration_of(erased.denoiser)
    for key in sorted({*settings[0], *settings[1]}):
        if settings[0].get(key) != settings[1].get(key):
            schedule[f"{erased.family.denoiser}.{key}"] = f"{settings[0].get(key)} → {settings[1].get(key)}"[
                :200
            ]
    return ComparedLine(
        prompts=len(prompts), same_vocabulary=same, read_otherwise=otherwise, parts=parts, schedule=schedule
    )


def _words(model: DiffusionModel) -> dict[str, dict[str, Any]]:
    """How each tokenizer reads words, step by step, less what every call says for itself."""
    tokenizers = {name: part for name, part in model.parts.items() if name not in model.modules}
    found = {name: json.loads(part.backend_tokenizer.to_str()) for name, part in tokenizers.items()}
    return {
        name: {key: value for key, value in words.items() if key not in ("padding", "truncation")}
        for name, words in found.items()
    }


@torch.no_grad()
def _distance(base: torch.nn.Module, other: torch.nn.Module) -> float:
    """L2 norm of the difference over the base's; -1 where the two do not hold the same tensors, or compute
    otherwise with them."""
    ours, theirs = other.state_dict(), base.state_dict()
    if {name: value.shape for name, value in ours.items()} != {
        name: value.shape for name, value in theirs.items()
    }:
        return -1.0
    if configuration_of(base) != configuration_of(other):
        return -1.0
    change = sum(
        float((ours[name].double() - value.double()).square().sum()) for name, value in theirs.items()
    )
    return float(
        (change / max(sum(float(value.double().square().sum()) for value in theirs.values()), 1e-30)) ** 0.5
    )


def _seen(tally: Tally, role: Role) -> Iterator[Sample]:
    """Scored images of the base's cells of one role."""
    for cell in tally.plan.cells:
        if cell.arm == BASE and cell.role is role:
            yield from (s for s in tally.drawn(cell) if s.image is not None and s.observations)


def known_positives(tally: Tally, pictures: PictureStore) -> list[Known]:
    """A few of the base's pictures in which the gate sees an erased concept, the surest of each, with what
    every detector said."""
    found: list[Known] = []
    for concept in tally.plan.policy.erase:
        asked = [s for s in _seen(tally, Role.POSITIVE) if tally.planned_for(s).concept == concept.name]
        for sample in _surest(tally, asked, concept.name)[:_KNOWN_OF_A_CONCEPT]:
            image = pictures.load(sample.image)
            if image is not None:
                found.append(Known(image, sample.observations))
    return found


def _surest(tally: Tally, samples: Sequence[Sample], concept: str) -> list[Sample]:
    """Those in which the gate sees ``concept``, the highest score first."""
    decisions = tally.decisions
    seen = [s for s in samples if decisions.decided(s.observations, concept) == HIT]
    return sorted(seen, key=lambda s: -(decisions.score(s.observations, concept) or 0.0))


def mixed_pictures(tally: Tally, pictures: PictureStore, seed: str) -> list[Sample]:
    """Pictures of the base to be shown again: some of every erased concept and as many of retained ones,
    in an order by ``seed``."""
    rng = random.Random(f"{seed} shown again")  # noqa: S311 - reproducible on purpose
    chosen: list[Sample] = []
    for concept in tally.plan.policy.erase:
        positive = [s for s in _seen(tally, Role.POSITIVE) if tally.planned_for(s).concept == concept.name]
        hits = _surest(tally, positive, concept.name) or positive
        chosen += rng.sample(hits, min(_SHOWN_OF_A_CONCEPT, len(hits)))
    retained = list(_seen(tally, Role.RETAINED))
    chosen += rng.sample(retained, min(len(chosen), len(retained)))
    rng.shuffle(chosen)
    return chosen


Draw = Callable[
    [Arm, DiffusionModel, Sequence[str], Sequence[int], int | None], tuple[Tensor, list[bool], bool]
]
"""An arm, its model, prompts, seeds and the rows of a pass in; images out, and what else is known of them."""


class Recheck:
    """Looks again at what was drawn and said, in the same process or in earlier ones."""

    def __init__(
        self,
        tally: Tally,
        pictures: PictureStore,
        scorer: Scorer,
        draw: Draw,
        model_of: Callable[[str], DiffusionModel | None],
    ) -> None:
        self._tally, self._pictures, self._scorer, self._draw, self._model_of = (
            tally,
            pictures,
            scorer,
            draw,
            model_of,
        )

    def repeat(self, batch: BatchLine | None, seed: str) -> RepeatLine:
        """Show the detectors pictures of the base again, and draw ``batch``, one of the erased arm,
        again.

        A detector that went blind, and a plugin that left something behind in this process, are found by it.
        """
        began = time.monotonic()
        shown = mixed_pictures(self._tally, self._pictures, seed)
        otherwise = self._said_otherwise(shown)
        model = self._model_of(ERASED)
        drawn, different = (0, 0) if model is None else self.different(model, batch)
        seconds = time.monotonic() - began
        return RepeatLine(
            shown=len(shown), otherwise=otherwise, drawn=drawn, different=different, seconds=seconds
        )

    def earlier(self, lines: Sequence[BatchLine], *, sealed: bool) -> EarlierLine:
        """Show all images of earlier processes to the detectors again, and draw batches of every arm,
        chosen at random, again."""
        samples = [
            sample
            for line in lines
            for sample in line.samples
            if sample.image is not None and sample.error is None
        ]
        if sealed:
            return EarlierLine(images=len(samples), scored=0, otherwise=0, drawn=0, different=0, sealed=True)
        began = time.monotonic()
        otherwise = self._said_otherwise(samples)
        drawn = different = 0
        not_drawn: list[str] = []
        for arm, chosen in choose_batches(lines, EARLIER_DRAWN):
            model = self._model_of(arm)
            if model is None:
                not_drawn.append(arm)
                continue
            for line in chosen:
                drawn += sum(sample.image is not None for sample in line.samples)
                different += self._drawn_otherwise(model, line)
        return EarlierLine(
            images=len(samples),
            scored=len(samples),
            otherwise=otherwise,
            drawn=drawn,
            different=different,
            not_drawn=tuple(not_drawn),
            seconds=time.monotonic() - began,
        )

    def _draw_again(self, model: DiffusionModel, line: BatchLine) -> Tensor:
        prompts, seeds = [sample.prompt for sample in line.samples], [sample.seed for sample in line.samples]
        return self._draw(self._tally.plan.arm(line.arm), model, prompts, seeds, line.rows)[0]

    def different(self, model: DiffusionModel, line: BatchLine | None) -> tuple[int, int]:
        """(images drawn again, how many of them are not the same bit for bit) of a batch of the erased
        arm."""
        if line is None:
            return 0, 0
        names = [self._pictures.name(image) for image in self._draw_again(model, line)]
        pairs = zip(names, line.samples, strict=True)
        return len(names), sum(name != sample.image for name, sample in pairs)

    def _drawn_otherwise(self, model: DiffusionModel, line: BatchLine) -> int:
        """How many of a batch's images are not drawn again.

        Bit for bit, or, since pictures of the base may come from a cache that was drawn in other company,
        within a tolerance and with the same said of them.
        """
        images = self._draw_again(model, line)
        otherwise = 0
        for sample, image in zip(line.samples, images, strict=True):
            if sample.image is None or self._pictures.name(image) == sample.image:
                continue
            kept = self._pictures.load(sample.image)
            near = kept is not None and int((image.int() - kept.int()).abs().max()) <= TOLERANCE
            said = (
                self._scorer.score([question(self._tally.planned_for(sample))], image[None])[0]
                if near and sample.error is None
                else None
            )
            otherwise += not near or (said is not None and not self._says_the_same(sample, said))
        return otherwise

    def _said_otherwise(self, samples: Sequence[Sample]) -> int:
        """Of how many scored images the detectors now say something else, or the file is not the image
        that was scored."""
        otherwise = 0
        for start in range(0, len(samples), _SHOWN_AT_ONCE):
            part = samples[start : start + _SHOWN_AT_ONCE]
            there = [
                (sample, image) for sample in part if (image := self._pictures.load(sample.image)) is not None
            ]
            otherwise += len(part) - len(there)
            if there:
                asked = [question(self._tally.planned_for(sample)) for sample, _ in there]
                answers = self._scorer.score(asked, torch.stack([image for _, image in there]))
                for (sample, image), own, found in zip(there, asked, answers, strict=True):
                    # in other company the last bits of a score may differ: alone it is asked once more
                    if not self._says_the_same(sample, found) and not self._says_the_same(
                        sample, self._scorer.score([own], image[None])[0]
                    ):
                        otherwise += 1
        return otherwise

    def _says_the_same(self, sample: Sample, found: Answer) -> bool:
        """Do the detectors say of an image what the journal says that they said?"""
        asked = self._tally.asked(sample)
        now, before = (
            self._tally.decisions.settled(said, asked) for said in (found.said, sample.observations)
        )
        return found.error is None and now == before


def choose_batches(lines: Sequence[BatchLine], images: int) -> list[tuple[str, list[BatchLine]]]:
    """Batches by arm, at least one of every arm, until they hold ``images``: nobody who wrote the journal
    can know which."""
    rng = secrets.SystemRandom()
    queues: dict[str, list[BatchLine]] = {}
    for line in lines:
        queues.setdefault(line.arm, []).append(line)
    for queue in queues.values():
        rng.shuffle(queue)
    chosen = {arm: [queue.pop()] for arm, queue in queues.items()}
    rest = [(arm, line) for arm, queue in queues.items() for line in queue]
    rng.shuffle(rest)
    while rest and sum(len(line.samples) for taken in chosen.values() for line in taken) < images:
        arm, line = rest.pop()
        chosen[arm].append(line)
    return list(chosen.items())
