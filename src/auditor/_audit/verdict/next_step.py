"""What would decide an INCONCLUSIVE audit: the command that goes on with a larger budget, what it takes and
at what odds; or, where no number of images decides, what to mend.

Going on is sound because every test reads evidence that is valid whenever sampling stops (verdict.md, "Going
on"). The odds are no evidence: they weigh the unknown rates by what was seen, as if checks were independent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from auditor._audit.cells import BASE, Cell, Role
from auditor._audit.command import more_of
from auditor._audit.evidence.share import population
from auditor._audit.verdict.facts import Facts
from auditor._audit.verdict.mend import failed, never
from auditor._audit.verdict.next_updates import more_updates
from auditor._stats.ahead import Ahead, Test, drop_ahead, first_reaching, rate_ahead
from auditor._stats.eprocess import Floats
from auditor.report import Control, Ledger, NextStep, Outcome, Provenance, Verdict
from auditor.report.voice.causes import mended
from auditor.report.words import percent

_FARTHEST = 4000  # images of a check, or retained images of a model state, that are looked ahead to
_NEARER, _MANY = 1000, 20  # where more checks than that are undecided, so far
_STEP = 10  # images between two budgets that are looked at
_WORTH = 0.05  # a smaller chance is called none
_ENOUGH, _SHARE = 0.8, 0.95  # the chance to decide that is proposed, or this share of what can be had
_LOOKED_AT = 60  # images that are drawn again before a PASS of an audit that went on (safety.md, S22)


def next_step(
    facts: Facts,
    verdict: Verdict,
    controls: Sequence[Control],
    ledger: Ledger,
    provenance: Provenance,
    unseen: int,
) -> NextStep | None:
    """Of an INCONCLUSIVE verdict; None of any other."""
    if verdict.outcome is not Outcome.INCONCLUSIVE:
        return None
    mend = [*never(facts, provenance), *failed(facts, controls)]
    if not facts.policy.sequential:
        mend.append(
            "Each check is read once (sequential: false), so more images need another audit: set "
            "sequential: true, or a larger budget, and give a new folder."
        )
        return _nothing(mend)
    if facts.tally.stopped is not None or not ledger.whole:
        return _the_rest(facts, provenance, mend)
    missing = any(control.passed is False and control.decides == "PASS" for control in controls)
    over = population(facts.evidence)
    held = all(facts.evidence.is_held(cell) for cell in facts.plan.gate_cells)
    if unseen and held and not missing and not mend:
        return _said(provenance.command, "The same command looks again at what earlier processes left.")
    if over is not None and held and not missing and not mend:
        return more_updates(facts, over, provenance)
    return _Ahead(facts, mend).step(provenance)


def _the_rest(facts: Facts, provenance: Provenance, mend: Sequence[str]) -> NextStep:
    """Of a run that ended before everything was drawn: the same command, with minutes where they ran out."""
    minutes, spent = facts.policy.budget.minutes, facts.tally.seconds / 60
    checks, over = facts.plan.gate_cells, population(facts.evidence)
    begun = sum(facts.evidence.rounds(cell) > 0 for cell in checks)
    command = provenance.command
    if facts.tally.stopped is not None and minutes is not None:
        times, read = len(checks) / max(1, begun), 0 if over is None else over.read
        if over is not None:  # about as many updates as the budget allows, at the pace of those before
            times = max(times, len(facts.plan.updates) / max(1, read))
        command = more_of(command, {"minutes": math.ceil(1.5 * max(minutes, spent) * times)})
    updates = "" if over is None else f" and {over.read} of {len(facts.plan.updates)} updates were read"
    return _said(
        command,
        f"Of {len(checks)} checks {begun} were begun{updates}, and not everything that is needed was drawn "
        "and scored, so no odds are known. The command goes on in the same folder.",
        mend,
    )


def _said(command: str, sentence: str, mend: Sequence[str] = ()) -> NextStep:
    return NextStep(
        command=command,
        images=None,
        most_images=None,
        minutes=None,
        p_pass=None,
        p_fail=None,
        mend=tuple(mend),
        sentence=sentence,
    )


def _nothing(mend: Sequence[str], p_pass: float = 0.0, p_fail: float = 0.0, why: str = "") -> NextStep:
    return NextStep(
        command=None,
        images=None,
        most_images=None,
        minutes=None,
        p_pass=p_pass,
        p_fail=p_fail,
        mend=tuple(mend),
        sentence=why or "More images of this run do not decide.",
    )


@dataclass(frozen=True)
class _Open:
    """A cell with tests that are not decided, what is ahead of it, and of how many images it has now."""

    cell: Cell
    now: int
    ahead: Ahead

    def rounds(self, images: int) -> int:
        """Rounds that it has to come where so many images are allowed in all."""
        return min(max(0, images - self.now) // self.cell.size, len(self.ahead.shown) - 1)

    def at(self, chances: Floats, grid: Floats) -> Floats:
        """``chances`` by round, at budgets of so many images."""
        return chances[[self.rounds(int(images)) for images in grid]]


class _Ahead:
    """Everything that is undecided, and what larger budgets would make of it."""

    def __init__(self, facts: Facts, mend: Sequence[str]) -> None:
        self.facts, self.plan, self.evidence = facts, facts.plan, facts.evidence
        self.known, self.lost = list(mend), dict[str, list[str]]()
        self.prior, self.alpha = facts.limits.prior, facts.limits.alpha
        budget = facts.policy.budget
        undecided = [cell for cell in self.plan.gate_cells if not self.evidence.is_held(cell)]
        most = max(budget.images_per_cell, budget.retained_per_arm)
        self.far = max(2 * most, _FARTHEST if len(undecided) <= _MANY else _NEARER)
        self.grid = np.arange(budget.images_per_cell, self.far + 1, _STEP).astype(float)
        self.retained_grid = np.arange(budget.retained_per_arm, self.far + 1, _STEP).astype(float)
        self.gate = [self._gate(cell) for cell in undecided]
        self.positive = list(self._positive())
        self.retained = list(self._retained())

    @property
    def mend(self) -> list[str]:
        """What keeps PASS out of reach whatever is drawn, in sentences."""
        return [*self.known, *(mended(control, arms) for control, arms in self.lost.items())]

    def step(self, provenance: Provenance) -> NextStep:
        """The smallest budget that is likely to decide, and its odds."""
        shown = _product([each.at(each.ahead.shown, self.retained_grid) for _, each in self.retained])
        seen = self._negatives(self.retained_grid)
        likely = [o.cell.name for o in self.gate if o.ahead.against[-1] >= _WORTH]
        wanted = [*([shown] if self.retained else []), *(seen[name] for name in likely)]
        at = max((first_reaching(each, _SHARE * each[-1]) for each in wanted), default=0)
        kept = float(shown[at]) if self.retained else 1.0
        p_pass = (0.0 if self.mend else kept) * _product(
            [each.at(each.ahead.shown, self.grid) for each in (*self.gate, *self.positive)], len(self.grid)
        )
        rarely = {name: float(chances[at]) for name, chances in seen.items()}
        not_failed = [1 - rarely[o.cell.name] * o.at(o.ahead.against, self.grid) for o in self.gate]
        p_fail = 1 - _product(not_failed, len(self.grid))
        decided = p_pass + p_fail
        best = float(decided[-1])
        here = first_reaching(decided, min(_ENOUGH, _SHARE * best))
        odds = float(p_pass[here]), float(p_fail[here])
        if best < _WORTH:
            low, high = (percent(limit, 1) for limit in self.facts.policy.thresholds)
            why = (
                f"{self.far} images a check decide with a chance below {_WORTH:.0%}: the rates seem to lie "
                f"between what PASS ({low}) and FAIL ({high}) need."
                if self.gate and not self.mend
                else "More images of this run do not decide."
            )
            return _nothing(self.mend, *odds, why)
        more: dict[str, float] = {}
        if self.gate or self.positive:
            more["images_per_cell"] = int(self.grid[here])
        if wanted and at:
            more["retained_per_arm"] = int(self.retained_grid[at])
        return self._proposed(provenance, more, odds, int(self.grid[here]), int(self.retained_grid[at]))

    def _proposed(
        self,
        provenance: Provenance,
        more: dict[str, float],
        odds: tuple[float, float],
        most: int,
        most_retained: int,
    ) -> NextStep:
        mean, least = 0.0, 0
        for each, allowed in (
            *((each, most) for each in (*self.gate, *self.positive)),
            *((each, most_retained) for each in {o.cell.name: o for _, o in self.retained}.values()),
        ):
            rounds = each.rounds(allowed)
            mean += float(each.ahead.images()[rounds])
            least += rounds * each.cell.size
        lines = [line for line in self.facts.tally.all_batches() if line.samples and not line.cached]
        drawn = sum(len(line.samples) for line in lines)
        again = len(self.plan.arms) * max((len(line.samples) for line in lines), default=0) + _LOOKED_AT
        images = max(1, round(mean))
        minutes = None
        if drawn:
            each_takes = sum(line.seconds for line in lines) / drawn
            minutes = round(each_takes * (images + again * odds[0]) / 60, 2)
        budget, spent = self.facts.policy.budget, self.facts.tally.seconds / 60
        if budget.minutes is not None and minutes is not None:
            more["minutes"] = math.ceil(max(budget.minutes, spent + 2 * minutes + 1))
        takes = "" if minutes is None else f", about {_minutes(minutes)}"
        return NextStep(
            command=more_of(provenance.command, more),
            budget=more,
            images=images,
            most_images=least,
            minutes=minutes,
            p_pass=round(odds[0], 4),
            p_fail=round(odds[1], 4),
            mend=tuple(self.mend),
            sentence=f"About {images} more images in all ({least} at most){takes}, with these chances by "
            f"what was seen so far: PASS {percent(odds[0])}, FAIL {percent(odds[1])}, still undecided "
            f"{percent(max(0.0, 1 - sum(odds)))}. The command goes on in the same folder.",
        )

    # -- what is undecided -----------------------------------------------------------------------------------

    def _rate(self, cell: Cell, concept: str | None, shown: Test, against: Test | None) -> _Open:
        reading = self.evidence.read(cell) if concept is None else self.evidence.read_others(cell, concept)
        low, high = reading.hits
        done = self.evidence.rounds(cell)
        size = cell.size if not done else max(1, round(reading.images / done))  # of others than the concept
        rounds = max(0, self.far - done * cell.size) // cell.size
        ahead = rate_ahead(low, high - low, reading.images, size, rounds, shown, against, self.prior)
        return _Open(cell, done * cell.size, ahead)

    def _gate(self, cell: Cell) -> _Open:
        held = Test(self.evidence.tau_pass, self.alpha, below=True)
        failed = Test(self.evidence.tau_fail, self.evidence.alpha_fail, below=False)
        found = self._rate(cell, None, held, failed)
        if self.evidence.p_failed(cell) <= self.evidence.alpha_fail:
            sure = np.ones_like(found.ahead.shown)
            return _Open(cell, found.now, Ahead(0 * sure, sure, cell.size))
        return found

    def _positive(self) -> Iterator[_Open]:
        test = Test(self.facts.limits.min_sensitivity, self.alpha, below=False)
        for cell in self.plan.cells:
            if cell.role is Role.POSITIVE and self.evidence.p_positive(cell) > self.alpha:
                yield from self._unless_lost("positive", self._rate(cell, None, test, None))

    def _retained(self) -> Iterator[tuple[str, _Open]]:
        """The controls on retained images that a PASS still needs."""
        limits = self.facts.limits
        own = [arm for arm in self.plan.arms if arm.is_named and arm.retained_by is None]
        for arm in dict.fromkeys(arm.partner for arm in own):
            cell = self.plan.cell(arm, Role.RETAINED)
            if cell is None:
                continue
            if self.evidence.p_assay(arm) > self.alpha:
                test = Test(limits.min_retain, self.alpha, below=False)
                yield from (
                    ("assay", o) for o in self._unless_lost("assay", self._rate(cell, None, test, None))
                )
            test = Test(limits.max_false_positive, self.alpha, below=True)
            for concept in self.plan.columns if arm == BASE else ():
                if self.evidence.p_negative(arm, concept) > self.alpha:
                    found = self._rate(cell, concept, test, None)
                    yield from (("negative", o) for o in self._unless_lost("negative", found))
        for each in own:
            pairs, cell = self.evidence.retained_pairs(each.name), self.plan.retained_of(each.name)
            if pairs is None or cell is None or self.evidence.p_drop(pairs) <= self.alpha:
                continue
            rounds = max(0, self.far - pairs.images) // cell.size
            ahead = drop_ahead(*pairs.last, cell.size, rounds, limits.max_retain_drop, self.alpha)
            found = _Open(cell, pairs.images, ahead)
            yield from (("alive", o) for o in self._unless_lost("alive", found))

    def _unless_lost(self, control: str, found: _Open) -> Iterator[_Open]:
        """It, or a sentence where no number of images is likely to let the control pass."""
        if found.ahead.shown[-1] >= _WORTH:
            yield found
        else:
            self.lost.setdefault(control, []).append(found.cell.arm)

    def _negatives(self, grid: Floats) -> dict[str, Floats]:
        """By undecided check the chance to show that the detector is rarely wrong on its model state."""
        test = Test(self.facts.limits.max_false_positive, self.evidence.alpha_fail, below=True)
        found = {}
        for each in self.gate:
            cell, name = self.plan.retained_of(each.cell.arm), each.cell.name
            if cell is None:
                found[name] = np.zeros(len(grid))
            elif self.evidence.p_negative(each.cell.arm, each.cell.concept) <= self.evidence.alpha_fail:
                found[name] = np.ones(len(grid))
            else:
                ahead = self._rate(cell, each.cell.concept, test, None)
                found[name] = ahead.at(ahead.ahead.shown, grid)
        return found


def _product(chances: Sequence[Floats], size: int = 1) -> Floats:
    return np.prod(chances, axis=0) if chances else np.ones(size)


def _minutes(value: float) -> str:
    return "a minute" if value < 1.5 else f"{value:.0f} minutes"
