"""Reads what was measured: each arm's counts and metrics, estimates over replicates, and the tidy table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from auditor._stats.binomial import lower_bound, upper_bound
from auditor._stats.contrasts import Estimate, contrast, rate_variance
from auditor._study.document import CHANGE, ROLES, Bar
from auditor._study.expand import Chosen, Erased, Expansion, StudyArm, StudySample
from auditor._study.store import ArmRecord, MetricValue, Store
from auditor.plugin import _door as door
from auditor.plugin._loader import make_plugin
from auditor.plugin.contracts import WeightProbe
from auditor.policy import ProbeUse

COLUMNS = (
    "study",
    "set",
    "domain",
    "concepts",
    "eraser",
    "strength",
    "replicate",
    "probe",
    "dose",
    "measure",
    "concept",
    "images",
    "hits",
    "missing",
    "value",
    "lower",
    "upper",
    "seconds",
    "arm",
    "why",
)


@dataclass(frozen=True)
class Count:
    """Images of one role and what was seen in them; missing ones (blank, noise, not finite) are in neither
    number."""

    hits: int = 0
    n: int = 0
    missing: int = 0

    @property
    def share(self) -> float | None:
        """None where nothing was measured: never 0."""
        return self.hits / self.n if self.n else None


@dataclass(frozen=True)
class ArmFinding:
    """One arm as it was measured, and why it was not, or not with every metric."""

    arm: StudyArm
    record: ArmRecord | None
    failure: str | None
    counts: Mapping[str, Count] = field(default_factory=dict)
    """By role, and by role and concept (``erased Borin Talvek``)."""
    metrics: Mapping[str, MetricValue] = field(default_factory=dict)

    def value(self, measure: str) -> float | None:
        """``detected``, ``retained`` or a metric."""
        if measure in ROLES:
            count = self.counts.get(ROLES[measure], Count())
            return None if count.missing > _MOST_MISSING * (count.n + count.missing) else count.share
        found = self.metrics.get(measure)
        return None if found is None else found.value

    def variance(self, measure: str) -> float:
        """What the images leave open of it."""
        if measure in ROLES:
            count = self.counts[ROLES[measure]]
            return rate_variance(count.hits, count.n)
        found = self.metrics[measure]
        return ((found.upper - found.lower) / (2 * 1.96)) ** 2


_MOST_MISSING = 0.05
"""Where more of an arm's images are missing its rate is not known well enough to be an estimate."""


class Findings:
    """Everything that a store holds of a study."""

    def __init__(self, plan: Expansion, store: Store, chosen: Chosen) -> None:
        self.plan, self.study, self._store = plan, plan.study, store
        self.chosen = chosen
        self.bases = {arm.set: self._finding(arm) for arm in plan.base_arms()}
        self.candidates = [self._finding(plan.erased_arm(erased)) for erased in plan.candidates()]
        self.arms: list[ArmFinding] = []
        for erased in plan.checkpoints(chosen):
            self.arms.append(self._finding(plan.erased_arm(erased)))
            for _, doses in plan.probe_arms(erased).values():
                self.arms += [self._finding(arm) for arm in doses]
        self._by_condition: dict[tuple[object, ...], ArmFinding] = {
            _condition(finding.arm): finding for finding in self.arms
        }

    def _finding(self, arm: StudyArm) -> ArmFinding:
        key = self.plan.record_key(arm)
        record = self._store.read(key)
        if record is None:
            return ArmFinding(arm, None, self._store.failure(key) or "not measured yet")
        metrics, failure = {}, None
        for use in self.study.metrics:
            metric_key = self.plan.metric_key(arm, use.use, use.options)
            value = self._store.metric(metric_key)
            if value is None:
                failure = failure or f"{use.use}: {self._store.failure(metric_key) or 'not measured yet'}"
            else:
                metrics[use.use] = value
        return ArmFinding(arm, record, failure, counts_of(self.plan.samples(arm.set), record), metrics)

    @property
    def every(self) -> list[ArmFinding]:
        """All arms, each once: bases, strengths that were not taken, and the checkpoints with their
        probes."""
        taken = {(finding.arm.set, finding.arm.key) for finding in self.arms}
        others = [finding for finding in self.candidates if (finding.arm.set, finding.arm.key) not in taken]
        return [*self.bases.values(), *others, *self.arms]

    @property
    def failures(self) -> list[ArmFinding]:
        """Arms that were not measured, or not with every metric."""
        return [finding for finding in self.every if finding.failure is not None]

    @property
    def seconds(self) -> float:
        """Of one process, spent on everything in here; what is shared between arms counts once."""
        records = {
            self.plan.record_key(finding.arm): finding.record
            for finding in self.every
            if finding.record is not None
        }
        return sum(record.making + record.drawing + record.scoring for record in records.values())

    def is_share(self, measure: str) -> bool:
        """Is it a rate, or a metric that lies between 0 and 1?"""
        options = {use.use: use.options for use in self.study.metrics}
        return measure in ROLES or (
            measure in options and make_plugin("metrics", measure, options[measure]).is_share
        )

    def of(self, erased: Erased, probe: str | None, dose: int | None = None) -> ArmFinding | None:
        """One arm of a checkpoint; without a dose the probe's last."""
        if probe is not None and dose is None:
            dose = next((use.doses[-1] for name, use in self.study.uses(erased.set) if name == probe), None)
        return self._by_condition.get((erased.set, erased.eraser, erased.replicate, probe, dose))

    def estimate(self, bar: Bar, measure: str, probed: bool = True) -> Estimate | None:
        """A measure of a bar's condition over replicates, after its probe or before it. None unless every
        replicate was measured.

        ``resurgence`` is what detection gained, on the same prompts and image seeds.
        """
        measure = f"{CHANGE}detected" if measure == "resurgence" else measure
        if measure.startswith(CHANGE):
            both = [self.estimate(bar, measure.removeprefix(CHANGE), each) for each in (True, False)]
            return None if both[0] is None or both[1] is None else contrast([1, -1], [both[0], both[1]])
        found = self.replicates(bar, probed)
        values = [None if finding is None else finding.value(measure) for finding in found]
        if any(value is None for value in values):
            return None
        known = [finding for finding in found if finding is not None]
        variance = sum(finding.variance(measure) for finding in known) / len(known)
        return Estimate(tuple(value for value in values if value is not None), variance)

    def replicates(self, bar: Bar, probed: bool) -> list[ArmFinding | None]:
        """The arms of a bar, one a replicate."""
        name, eraser = bar.set or next(iter(self.study.sets)), bar.eraser or next(iter(self.study.erasers))
        probe = (bar.probe or self.study.uses(name)[0][0]) if probed else None
        checkpoints = [e for e in self.plan.checkpoints(self.chosen) if (e.set, e.eraser) == (name, eraser)]
        return [self.of(erased, probe, bar.dose if probed else None) for erased in checkpoints]

    def not_fitted(self, bars: Sequence[Bar]) -> str:
        """The first of the bars whose probe is not known to have done anything in every replicate; empty
        where all are.

        One that trains must lower the held-out loss on its own captions: a loss that is not a number, or that
        nothing was held out for, is not lower. One that trains on nothing must move the weights as far as it
        says.
        """
        for bar in bars:
            use = self._use(bar)
            probe: WeightProbe = make_plugin("probes", use.use, use.options)
            if not all(_took(probe, finding) for finding in self.replicates(bar, probed=True)):
                return bar.label
        return ""

    def _use(self, bar: Bar) -> ProbeUse:
        uses = dict(self.study.uses(bar.set or next(iter(self.study.sets))))
        return uses[bar.probe or next(iter(uses))]

    # -- the table -------------------------------------------------------------------------------------------

    def rows(self, title: str) -> Iterator[dict[str, Any]]:
        """A row a measure of an arm; rates with Clopper-Pearson bounds, metrics with their bootstrap's.
        Missing values are empty."""
        for finding in self.every:
            yield from self._rows(title, finding)

    def _rows(self, title: str, finding: ArmFinding) -> Iterator[dict[str, Any]]:
        arm, record = finding.arm, finding.record
        concepts = self.study.sets[arm.set].erase
        about: dict[str, Any] = {
            "study": title,
            "set": arm.set,
            "domain": concepts[0].domain,
            "concepts": len(concepts),
            "probe": arm.probe or ("base" if arm.erased is None else "erased"),
            "dose": arm.dose,
            "arm": arm.key[:12],
        }
        if arm.erased is not None:
            strength = None if arm.erased.strength is None else arm.erased.strength + 1
            about |= {"eraser": arm.erased.eraser, "strength": strength, "replicate": arm.erased.replicate}
        if finding.failure is not None:
            yield about | {"measure": "not measured", "why": finding.failure}
        if record is None:
            return
        about["seconds"] = round(record.making + record.drawing + record.scoring, 2)
        for role, count in finding.counts.items():
            measure, _, concept = role.partition(" ")
            yield about | {
                "measure": {"erased": "detected", "synonym": "detected by synonym"}.get(measure, measure),
                "concept": concept,
                "images": count.n,
                "hits": count.hits,
                "missing": count.missing,
                "value": count.share,
                "lower": lower_bound(count.hits, count.n, 0.025) if count.n else None,
                "upper": upper_bound(count.hits, count.n, 0.025) if count.n else None,
            }
        for name, value in finding.metrics.items():
            yield about | {
                "measure": name,
                "images": value.images,
                "value": value.value,
                "lower": value.lower,
                "upper": value.upper,
            }
        for name in ("fit_before", "fit", "change"):
            if getattr(record, name) is not None:
                yield about | {"measure": name.replace("_", " "), "value": getattr(record, name)}
        for part in ("unet", "attn2 keys and values"):
            if part in record.distances:
                yield about | {"measure": f"distance of {part}", "value": record.distances[part][0]}


def _took(probe: WeightProbe, finding: ArmFinding | None) -> bool:
    record = None if finding is None else finding.record
    if record is None:
        return False
    if door.call(probe, getattr, probe, "has_sham"):
        return record.fit is not None and record.fit_before is not None and record.fit < record.fit_before
    least = door.call(probe, probe.least_change)
    return record.change is not None and record.change > 0 and record.change >= (least or 0.0)


def _condition(arm: StudyArm) -> tuple[object, ...]:
    assert arm.erased is not None
    return arm.set, arm.erased.eraser, arm.erased.replicate, arm.probe, arm.dose


def counts_of(samples: Sequence[StudySample], record: ArmRecord) -> dict[str, Count]:
    """What the first detector saw, by role and by erased concept."""
    found: dict[str, list[bool | None]] = defaultdict(list)
    for sample, outcome in zip(samples, record.outcomes, strict=True):
        if sample.role in ("erased", "synonym", "retained"):
            hit = next(iter(outcome.hits.values())) if outcome.hits else None
            found[sample.role].append(hit)
            if sample.role != "retained":
                found[f"{sample.role} {sample.concept}"].append(hit)
    return {
        role: Count(
            sum(hit is True for hit in hits),
            sum(hit is not None for hit in hits),
            sum(hit is None for hit in hits),
        )
        for role, hits in sorted(found.items())
    }
