"""Measures the policy's metrics on an arm's retained images: what the update did to the model's ordinary
work."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from auditor._audit.cells import Role
from auditor._audit.evidence.counts import Tally
from auditor._audit.plan import Plan
from auditor._files.images import PictureStore, from_png
from auditor._journal.lines import MetricLine, NoteLine, Sample
from auditor._process.watchdog import WATCHDOG
from auditor._stats.binomial import lower_bound, upper_bound
from auditor.errors import ENDINGS, PluginError, said
from auditor.plugin import _door as door
from auditor.plugin.contracts import ImageOutcome, Metric

_BATCH = 64


class Measurer:
    """The policy's metrics. An image's features are computed once."""

    def __init__(self, plan: Plan, metrics: Sequence[Metric], pictures: PictureStore) -> None:
        self._plan, self._metrics, self._pictures = plan, metrics, pictures
        self._known: dict[tuple[str, str, str], np.ndarray] = {}

    def measure(self, tally: Tally, arm: str) -> Iterator[MetricLine | NoteLine]:
        """A line a metric, or a note where one breaks: no verdict rests on it."""
        pairs = _pairs(self._plan, tally, arm)
        if not pairs:
            return
        for metric in self._metrics:
            before = tally.metrics.get((arm, metric.name))
            if before is not None and before.images == len(pairs):
                continue
            line: MetricLine | NoteLine
            try:
                line = self._line(metric, arm, pairs)
            except (OSError, *ENDINGS):
                raise
            # no verdict rests on a metric, so nothing that one does may end a run
            except BaseException as error:  # noqa: BLE001
                line = NoteLine(text=f"{arm}: {door.title(metric)}: {said(error)}")
            yield line

    def _line(self, metric: Metric, arm: str, pairs: list[tuple[Sample, Sample]]) -> MetricLine:
        began = time.monotonic()
        own, reference = (self._features(metric, [pair[side] for pair in pairs]) for side in (0, 1))
        value, lower, upper = bootstrap(metric, own, reference, [sample.prompt for sample, _ in pairs])
        return MetricLine(
            arm=arm,
            metric=metric.name,
            images=len(pairs),
            value=value,
            lower=lower,
            upper=upper,
            seconds=time.monotonic() - began,
        )

    def _features(self, metric: Metric, samples: list[Sample]) -> np.ndarray:
        keys = [(metric.name, str(sample.image), sample.prompt) for sample in samples]
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        for start in range(0, len(new), _BATCH):
            batch = new[start : start + _BATCH]
            images = torch.stack([from_png(self._pictures.path(image).read_bytes()) for _, image, _ in batch])
            rows = features_of(metric, images, [prompt for *_, prompt in batch])
            self._known |= dict(zip(batch, rows, strict=True))
        return np.stack([self._known[key] for key in keys])


def features_of(
    metric: Metric, images: Tensor, prompts: Sequence[str], outcomes: Sequence[ImageOutcome] | None = None
) -> np.ndarray:
    """A metric's features of ``images``, held to its contract (:class:`PluginError`)."""
    asked = door.call(metric, getattr, metric, "uses_outcomes")
    rows = door.call(metric, metric.features, images, prompts, *((outcomes,) if asked else ()))
    if (
        not isinstance(rows, np.ndarray)
        or rows.ndim != 2
        or len(rows) != len(images)
        or not np.isfinite(rows).all()
    ):
        raise PluginError(
            f"{door.title(metric)} returned features that are no finite array with a row an image."
        )
    return rows


_FEWEST_PROMPTS = 5


def bootstrap(
    metric: Metric,
    own: np.ndarray,
    reference: np.ndarray,
    prompts: Sequence[str],
    strata: Sequence[str] | None = None,
) -> tuple[float, float, float]:
    """(value, lower, upper): a seeded 95 % bootstrap over prompts, ``own`` and ``reference`` rows staying
    together.

    Prompts are drawn within their stratum; where one has fewer than five, its images are drawn instead. The
    percentiles are moved by what resampling itself adds on average: a distance between samples grows when
    rows repeat, and its plain percentiles can leave the value out. Of a mean they are the usual ones. A share
    that is the same in all images would have none: its interval is at least that of Clopper and Pearson for
    as many images as the smallest stratum has.
    """
    blocks: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, prompt in enumerate(prompts):
        blocks["" if strata is None else strata[number]][prompt].append(number)
    units = [
        list(block.values())
        if len(block) >= _FEWEST_PROMPTS
        else [[row] for rows in block.values() for row in rows]
        for _, block in sorted(blocks.items())
    ]
    rng = random.Random(0)  # noqa: S311 - reproducible on purpose
    chosen = [
        [row for unit in units for rows in rng.choices(unit, k=len(unit)) for row in rows]
        for _ in range(metric.resamples)
    ]

    def values() -> list[float]:
        found = []
        for some in [list(range(len(prompts))), *chosen]:
            found.append(float(metric.value(own[some], reference[some])))
            WATCHDOG.alive()
        return found

    found = np.array(door.call(metric, values))
    if not np.isfinite(found).all():
        raise PluginError(f"{door.title(metric)} gave a value that is not finite.")
    value, drawn = float(found[0]), found[1:]
    lower, upper = (value + np.quantile(drawn, (0.025, 0.975)) - drawn.mean()).tolist()
    if metric.is_share:
        count = min(sum(map(len, block.values())) for block in blocks.values())
        hits = round(value * count)
        lower, upper = (
            max(0.0, min(lower, lower_bound(hits, count, 0.025))),
            min(1.0, max(upper, upper_bound(hits, count, 0.025))),
        )
    return value, lower, upper


def _pairs(plan: Plan, tally: Tally, arm: str) -> list[tuple[Sample, Sample]]:
    """The arm's retained samples with the base's of the same prompt and seed; with themselves where there
    is no base."""
    cell, base = plan.cell(arm, Role.RETAINED), plan.retained_partner(arm)
    if cell is None:
        return []
    own = [sample for sample in tally.drawn(cell) if sample.image is not None]
    if base is None:
        return [(sample, sample) for sample in own]
    partners = {(s.prompt, s.index): s for s in tally.drawn(base) if s.image is not None}
    return [
        (sample, partners[sample.prompt, sample.index])
        for sample in own
        if (sample.prompt, sample.index) in partners
    ]
