"""Holds what was measured against what the paper says, by a test that is stated beside it: agrees, disagrees
or undecided.

One-sided tests: ``rises`` and ``falls`` look at the least-squares rise from the first bar to the last, within
each replicate; ``above`` at the mean of one group less that of the other; ``grows`` at the mean of all bars
of something that is a change already. They agree where the 95 % interval lies above 0; disagree where it does
not and lies below the claim's margin, so that no difference that matters is left.

Two-sided ones: ``same`` looks at all differences between two bars, ``unchanged`` at every bar of something
that is a change. They agree where all 95 % intervals lie within the margin; disagree where one, corrected for
their number, lies beyond it.

Everything else is undecided, and so is what was not measured. Where nothing came back in any bar (neither on
average over replicates, nor in one of them by more than the margin, whatever images had been drawn), or a
probe did not lower the loss on its own held-out captions, bars of resurgence would be equal whatever the
truth is: that decides nothing (assay sensitivity, ICH E10). Nor does what comes back in erasers that kept
unequal shares of what was to be retained: what returns in a damaged model is the damaged domain, not the
concept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from auditor._stats.contrasts import Estimate, contrast, rise
from auditor._study.document import Bar, Claim, Figure
from auditor._study.findings import Findings

_MOST_APART = 0.05  # of what erasers that are compared retain

Answer = Literal["agrees", "disagrees", "undecided"]


@dataclass(frozen=True)
class Held:
    """A claim and what became of it."""

    claim: Claim
    answer: Answer
    measured: str
    """In words and numbers."""


def hold(findings: Findings, figure: Figure) -> list[Held]:
    """Every claim of a figure against what was measured."""
    return [_hold(findings, figure, claim) for claim in figure.claims]


def _hold(findings: Findings, figure: Figure, claim: Claim) -> Held:
    named = (
        claim.bars
        or tuple(label for group in claim.groups for label in group)
        or tuple(bar.label for bar in figure.bars)
    )
    bars = {bar.label: bar for bar in figure.bars}
    estimates = {label: findings.estimate(bars[label], claim.measure) for label in named}
    open_ = [label for label, estimate in estimates.items() if estimate is None]
    if open_:
        return Held(claim, "undecided", f"not measured: {', '.join(open_)}")
    known = {label: estimate for label, estimate in estimates.items() if estimate is not None}
    if min(len(estimate.values) for estimate in known.values()) < 2:
        return Held(claim, "undecided", "one training seed cannot say how much training seeds differ")
    compares = claim.measure == "resurgence" and claim.test not in ("unchanged", "grows")
    if compares and not any(_came_back(estimate, claim.margin, len(known)) for estimate in known.values()):
        return Held(
            claim,
            "undecided",
            f"nothing came back beyond chance in any of {len(known)} bars, so they cannot be told apart",
        )
    if unfit := findings.not_fitted([bars[label] for label in named]):
        return Held(claim, "undecided", f"the probe did not take in {unfit}")
    if compares and (unequal := _unequal_utility(findings, [bars[label] for label in named])):
        return Held(claim, "undecided", unequal)
    if claim.test == "same":
        pairs = combinations(named, 2)
        return _within(
            claim, {f"{one} less {two}": contrast([1, -1], [known[one], known[two]]) for one, two in pairs}
        )
    if claim.test == "unchanged":
        return _within(claim, known)
    if claim.test == "grows":
        return _sided(
            claim,
            contrast([1 / len(known)] * len(known), list(known.values())),
            f"{claim.measure}: mean of {len(known)} bars",
        )
    if claim.test == "above":
        one, two = ([known[label] for label in group] for group in claim.groups)
        difference = contrast([1 / len(one)] * len(one) + [-1 / len(two)] * len(two), [*one, *two])
        return _sided(
            claim,
            difference,
            f"{claim.measure}: {', '.join(claim.groups[0])} less {', '.join(claim.groups[1])}",
        )
    change = rise([known[label] for label in named])
    if claim.test == "falls":
        change = contrast([-1], [change])
    return _sided(
        claim,
        change,
        f"{claim.measure}: {'fall' if claim.test == 'falls' else 'rise'} from {named[0]} to {named[-1]}",
    )


def _unequal_utility(findings: Findings, bars: Sequence[Bar]) -> str:
    """Why erasers cannot be compared: what each kept before any probe, where that differs by more than the
    margin; empty where they can."""
    if len({bar.eraser for bar in bars}) < 2:
        return ""
    kept = {bar.eraser: findings.estimate(bar, "retained", probed=False) for bar in bars}
    if any(estimate is None for estimate in kept.values()):
        return "not known what each eraser kept before any probe"
    shares = {str(eraser): estimate.value for eraser, estimate in kept.items() if estimate is not None}
    low, high = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    if shares[high] - shares[low] <= _MOST_APART:
        return ""
    return (
        f"the erasers are of unequal utility: before any probe {low} kept {shares[low]:.0%} of what was to "
        f"be retained and {high} {shares[high]:.0%}, and what returns in a damaged model is not the concept "
        "alone"
    )


def _came_back(estimate: Estimate, margin: float, bars: int) -> bool:
    """On average over replicates; or in one of them by more than the margin, its images' interval
    corrected for all replicates and bars."""
    level = 1 - 0.05 / (bars * len(estimate.values))
    alone = (Estimate((value,), estimate.variance).interval(level)[0] for value in estimate.values)
    return estimate.interval()[0] > 0 or any(lower > margin for lower in alone)


def _sided(claim: Claim, difference: Estimate, what: str) -> Held:
    lower, upper = difference.interval()
    answer: Answer = "agrees" if lower > 0 else "disagrees" if upper < claim.margin else "undecided"
    return Held(claim, answer, f"{what}: {shown(difference)}")


def _within(claim: Claim, differences: dict[str, Estimate]) -> Held:
    margin = claim.margin
    within = all(
        -margin < lower and upper < margin
        for lower, upper in (each.interval() for each in differences.values())
    )
    strict = [each.interval(1 - 0.05 / len(differences)) for each in differences.values()]
    beyond = any(lower > margin or upper < -margin for lower, upper in strict)
    answer: Answer = "agrees" if within else "disagrees" if beyond else "undecided"
    widest = max(differences, key=lambda label: abs(differences[label].value))
    return Held(
        claim,
        answer,
        f"{claim.measure}: largest of {len(differences)}, {widest}: {shown(differences[widest])}; margin "
        f"{margin:g}",
    )


def shown(estimate: Estimate) -> str:
    """An estimate with its interval, for people."""
    lower, upper = estimate.interval()
    digits = 2 if max(abs(lower), abs(upper)) < 10 else 1
    return f"{estimate.value:+.{digits}f} [{lower:+.{digits}f}, {upper:+.{digits}f}]"
