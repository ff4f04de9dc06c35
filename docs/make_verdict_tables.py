"""The exact operating characteristics in ``docs/verdict.md``: what the claim over updates does at known
shares of bad updates. Run as a script it prints the table."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from auditor._audit.plan import make_plan
from auditor._audit.power import reading_of
from auditor._stats.one_update import UpdateOutlook
from auditor._stats.over_updates import ShareDesign, ShareOutlook, back_chance, unclean_chance
from auditor.policy import load_policy

POLICY = Path(__file__).parents[1] / "policies" / "micro-person-updates.yaml"
CLAIMS = ((0.2, 60), (0.1, 120))
"""(share, most updates)."""
GOOD_RATES, GOOD_LOSS, BAD_RATE = (0.0, 0.01), 0.02, 0.9
"""Of a good update the rate of the concept and what it loses; of a bad one the rate."""

HEAD = (
    "| share, most updates | rate of good updates | S | PASS | FAIL | updates | images | fixed: PASS | "
    "FAIL | updates | images |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Row:
    """One truth: the claim, the rate of good updates and the share of bad ones, and what becomes of it."""

    share: float
    most: int
    good_rate: float
    bad: float
    sequential: ShareOutlook
    fixed: ShareOutlook
    images: float
    """Mean number of images of one update, erased and kept."""

    def __str__(self) -> str:
        cells = [f"{self.share:g}, {self.most}", f"{self.good_rate:.0%}", f"{self.bad:g}"]
        for found in (self.sequential, self.fixed):
            updates = found.updates
            cells += [f"{found.passed:.3f}", f"{found.failed:.3f}", f"{updates:.1f}".removesuffix(".0")]
            cells.append(f"{updates * self.images:.0f}")
        return f"| {' | '.join(cells)} |"


def rows() -> Iterator[Row]:
    """Every row of the table, for the limits and budgets of the policy ``micro-person-updates``."""
    plan = make_plan(load_policy(POLICY))
    reading, limits = reading_of(plan), plan.policy.limits
    bad = reading.outlook(BAD_RATE)
    for share, most in CLAIMS:
        design = ShareDesign(share, most, limits.alpha, reading.alpha_in, plan.hypotheses, limits.prior)
        for rate in GOOD_RATES:
            good = reading.outlook(rate, GOOD_LOSS)
            few = chances(share / 4, good, bad)
            n = design.fixed_size(few[0], design.outlook(*few).passed)
            assert n is not None
            for true in (0.0, share / 4, share / 2, share, 2 * share, 0.9):
                unclean, back = chances(true, good, bad)
                images = (1 - true) * (good.images + good.retained) + true * (bad.images + bad.retained)
                found = design.outlook(unclean, back), design.fixed_outlook(n, unclean, back)
                yield Row(share, most, rate, true, *found, images)


def chances(bad: float, good_one: UpdateOutlook, bad_one: UpdateOutlook) -> tuple[float, float]:
    """The chances that a drawn update is unclean and that it is proven to be back."""
    back = back_chance(bad, bad_one.back, good_one.back)
    return max(back, unclean_chance(bad, bad_one.clean, 1 - good_one.clean)), back


if __name__ == "__main__":
    sys.stdout.write("\n".join([HEAD, *map(str, rows())]) + "\n")
