"""The claim over ordinary updates in sentences: what was shown of them, and what would decide."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from auditor.report.document import Cause, Report
from auditor.report.population import Population, UpdateResult
from auditor.report.words import alpha as level_of
from auditor.report.words import certainty, listed, percent

OVER_UPDATES = "Over ordinary updates: "
"""How every reason begins that is about them."""

STATES = {
    "back": "back",
    "unclean": "not clean",
    "clean": "clean",
    "not counted": "not counted",
    "open": "not read yet",
}
"""What every form calls the state of an update, the gravest first."""


@dataclass(frozen=True)
class Kind:
    """The updates of one kind that were begun, in the order in which they were drawn."""

    name: str
    updates: tuple[UpdateResult, ...]

    @property
    def said(self) -> str:
        """``in-domain-lora: 5 updates, 1 back, 4 clean``."""
        counts = Counter[str](each.state for each in self.updates)
        told = [f"{counts[state]} {word}" for state, word in STATES.items() if counts[state]]
        return f"{self.name}: {_counted(len(self.updates))}, {', '.join(told)}"


def kinds(found: Population) -> tuple[Kind, ...]:
    """The updates by kind and method, in the order in which the kinds were first drawn."""
    own: dict[tuple[str, str], list[UpdateResult]] = {}
    for each in found.updates:
        own.setdefault((each.member, each.method), []).append(each)
    members = Counter(member for member, _ in own)
    return tuple(
        Kind(member if members[member] == 1 else f"{member} ({method})", tuple(updates))
        for (member, method), updates in own.items()
    )


def what_was_shown(report: Report) -> str:
    """What is shown of the population, in a sentence; empty where the policy has none."""
    found = report.population
    if found is None:
        return ""
    if found.failed:
        return failed_reason(found, level_of(report))
    if found.held:
        return held_reason(found, level_of(report))
    own = (text for text in report.verdict.reasons if text.startswith(OVER_UPDATES))
    return next(own, f"{_shown_neither(found, level_of(report))}.")


def numbers_of(report: Report, found: Population) -> str:
    """The share with its bounds in one line: ``24 updates read, 2 not clean, 1 back; …``."""
    read = f"{_counted(found.read)} read of at most {found.planned}"
    limit = f"limit {percent(found.share)}: {found.state}"
    low, high = found.bounds
    if low is None:
        return f"{read}; {limit}"
    return (
        f"{read}, {found.unclean} not clean, {found.back} back; {percent(low, 1)} to {percent(high, 1)} of "
        f"the population's {what_of(found)} bring a concept back (each bound at "
        f"{certainty(level_of(report))}), {limit}"
    )


def what_of(found: Population) -> str:
    """What the share is a share of."""
    return "updates" if found.over == "updates" else "pairs of an update and a concept"


def held_reason(found: Population, alpha: float) -> str:
    """What a PASS says of the population."""
    return (
        f"{OVER_UPDATES}{found.read} were read and {_were(found.unclean)} not clean{_of_any(found)}; with "
        f"{certainty(alpha)} certainty fewer than {percent(found.upper, 1)} of the population's "
        f"{what_of(found)} bring {_a_concept(found)} back (limit {percent(found.share)})."
    )


def _a_concept(found: Population) -> str:
    """What PASS says of each erased concept, of one, or of all that are asked about."""
    if found.over == "pairs":
        return "the concept"
    return "it" if len(found.shares) == 1 else "any one erased concept"


def _of_any(found: Population) -> str:
    """Where several concepts are claimed, each by itself: of which the count is, and that of all together."""
    if len(found.shares) < 2:
        return ""
    return f" of one concept ({found.unclean_of_any} of any)"


def failed_reason(found: Population, alpha: float) -> str:
    """Why the population proves FAIL."""
    return (
        f"{OVER_UPDATES}{found.back} of {found.read} brought a concept back; with {certainty(alpha)} "
        f"certainty at least {percent(found.back_lower, 1)} of the population's {what_of(found)} do (limit "
        f"{percent(found.share)})."
    )


def undecided_reason(found: Population, alpha: float, cause: Cause) -> str:
    """Why the population shows neither."""
    if cause is Cause.BUDGET:
        ending = "the run ended before more were read"
    elif found.read < found.planned:
        ending = f"no more of the {found.planned} of the budget would decide"
    else:
        ending = f"all {found.planned} of the budget were read"
    return f"{_shown_neither(found, alpha)}; {ending}."


def _shown_neither(found: Population, alpha: float) -> str:
    if not found.read:
        return (
            f"{OVER_UPDATES}none of {found.planned} was read, so nothing is shown of their share (limit "
            f"{percent(found.share)})"
        )
    broke = sum(_broke(each) for each in found.updates)
    dull = sum(each.made == "did not take" for each in found.updates)
    told = [f"{broke} broke" if broke else "", f"{dull} did not take" if dull else ""]
    more = f" ({', '.join(filter(None, told))})" if broke or dull else ""
    return (
        f"{OVER_UPDATES}of {found.read} read, {_were(found.unclean)} not read clean{more} and {found.back} "
        f"brought a concept back: {percent(found.back_lower, 1)} to {percent(found.upper, 1)} of the "
        f"population's {what_of(found)} do (each bound at {certainty(alpha)}), and the limit is "
        f"{percent(found.share)}"
    )


def way_out(report: Report, cause: Cause) -> str:
    """What would decide an undecided population, in half a sentence."""
    found = report.population
    assert found is not None
    broken = [each for each in found.updates if _broke(each)]
    if broken:
        return f"mend what broke ({broken[0].why}), then give the same command again"
    if cause is Cause.BUDGET:
        return "the same command goes on in the same folder"
    return (
        f"more updates may decide (--updates {2 * found.planned}), in the same folder; else erase more "
        "strongly, or raise the limit"
    )


def story(report: Report, found: Population) -> str:
    """The headline of a FAIL that the population alone proves."""
    bad = [each for each in found.updates if each.state == "back"]
    is_drawn = "detected" if report.policy["claim"] == "detector" else "drawn"
    rates = [(rate.hits / rate.images, rate, each) for each in bad for rate in each.rates if rate.back]
    worst = max(rates, key=lambda row: row[0], default=None)
    most = (
        ""
        if worst is None
        else (
            f"; after update {worst[2].number} ({', '.join(kind_of(worst[2]))}) {worst[1].concept} is "
            f"{is_drawn} in {worst[1].hits} of {worst[1].images} images"
        )
    )
    names = listed(list(dict.fromkeys(rate.concept for _, rate, _ in rates)))
    what, of = names or "a concept", f"{found.back} of {found.read} ordinary updates"
    if report.policy["claim"] == "detector":
        story = f"The detector says {what} after {of}"
    elif report.verdict.origin == "came back":
        story = f"Came back: {of} bring {what} back"
    else:
        story = f"Present: {what} is drawn after {of}"
    return (
        f"{story}{most}; "
        f"at least {percent(found.back_lower, 1)} of such updates do, and the limit is "
        f"{percent(found.share)}."
    )


def kind_of(update: UpdateResult) -> list[str]:
    """Which kind of update it is, and for how many steps it was trained."""
    return [update.member] + ([] if update.steps is None else [f"{update.steps} steps"])


def _broke(update: UpdateResult) -> bool:
    return update.made == "broken"


def _counted(count: int) -> str:
    return f"{count} {'update' if count == 1 else 'updates'}"


def _were(count: int) -> str:
    return f"{count} {'was' if count == 1 else 'were'}"
