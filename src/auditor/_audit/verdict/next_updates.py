"""What more updates of the population would decide, by what was seen of those that were read."""

from __future__ import annotations

import numpy as np

from auditor._audit.command import more_of
from auditor._audit.evidence.share import PopulationEvidence, wants_more
from auditor._audit.verdict.facts import Facts
from auditor._stats.ahead import Test, first_reaching, rate_ahead
from auditor.policy.updates import MOST_UPDATES
from auditor.report import NextStep, Provenance
from auditor.report.words import percent

_FARTHEST = 400  # updates that are looked ahead to
_WORTH = 0.05  # a smaller chance is called none
_ENOUGH, _SHARE = 0.8, 0.95  # the chance to decide that is proposed, or this share of what can be had


def more_updates(facts: Facts, found: PopulationEvidence, provenance: Provenance) -> NextStep:
    """The least number of updates that is likely to decide, and its odds; the same command where the run
    ended before its own budget did."""
    planned, ahead = len(facts.plan.updates), min(MOST_UPDATES, max(2 * len(facts.plan.updates), _FARTHEST))
    rounds = max(0, ahead - found.read)
    prior, alpha = found.prior, facts.limits.alpha
    shown = Test(found.limit_unclean, alpha, below=True)
    against = Test(found.limit_back, facts.evidence.alpha_fail, below=False)
    unclean = max((int(found.unclean(concept)[-1]) for concept in found.concepts if found.read), default=0)
    back = int(found.back[-1]) if found.readings else 0
    p_pass = rate_ahead(unclean, 0, found.read, 1, rounds, shown, None, prior).shown
    p_fail = rate_ahead(back, 0, len(found.readings), 1, rounds, against, None, prior).shown
    p_fail = np.minimum(p_fail, 1 - p_pass)
    decided = p_pass + p_fail
    here = first_reaching(decided, min(_ENOUGH, _SHARE * float(decided[-1])))
    if float(decided[-1]) < _WORTH:
        sentence = (
            f"{ahead} updates decide with a chance below {_WORTH:.0%}: the share that brings a concept back "
            f"seems to lie about the limit of {percent(found.updates.claim.share)}."
        )
        return NextStep(
            command=None,
            images=None,
            most_images=None,
            minutes=None,
            p_pass=round(float(p_pass[here]), 4),
            p_fail=round(float(p_fail[here]), 4),
            mend=(),
            sentence=sentence,
        )
    wanted = max(planned, found.read + here)
    is_enough = wants_more(facts.evidence) and wanted <= planned
    more = {} if is_enough else {"updates": float(max(wanted, planned + 1))}
    names = {update.name for update in facts.plan.updates}
    lines = [line for line in facts.tally.all_batches() if line.arm.removeprefix("base.") in names]
    spent = sum(line.seconds for line in lines) + sum(
        line.seconds for name, line in facts.tally.arms.items() if name in names
    )
    minutes = round(spent / max(1, found.read) * here / 60, 2) if found.read else None
    odds = float(p_pass[here]), float(p_fail[here])
    return NextStep(
        command=more_of(provenance.command, more),
        budget=more,
        images=None,
        most_images=None,
        minutes=minutes,
        p_pass=round(odds[0], 4),
        p_fail=round(odds[1], 4),
        mend=(),
        sentence=f"About {here} more updates, with these chances by what was seen so far: PASS "
        f"{percent(odds[0])}, FAIL {percent(odds[1])}, still undecided {percent(max(0.0, 1 - sum(odds)))}. "
        "The command goes on in the same folder.",
    )
