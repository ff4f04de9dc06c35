"""The claim over ordinary updates in sentences: what was shown of them, and what would decide."""

from __future__ import annotations

from auditor.report.document import Cause, Report
from auditor.report.population import Population, UpdateResult
from auditor.report.words import certainty, listed, percent

OVER_UPDATES = "Over ordinary updates: "
"""How every reason begins that is about them."""


def what_of(found: Population) -> str:
    """What the share is a share of."""
    return "updates" if found.over == "updates" else "pairs of an update and a concept"


def held_reason(found: Population, alpha: float) -> str:
    """What a PASS says of the population."""
    return (
        f"{OVER_UPDATES}{found.read} were drawn and {_were(found.unclean)} not read clean; with "
        f"{certainty(alpha)} certainty fewer than {percent(found.upper, 1)} of the population's "
        f"{what_of(found)} bring a concept back (limit {percent(found.share)})."
    )


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
    broke = sum(_broke(each) for each in found.updates)
    dull = sum(
        each.state == "unclean" and each.why.startswith("The update did not take") for each in found.updates
    )
    told = [f"{broke} broke" if broke else "", f"{dull} did not take" if dull else ""]
    more = f" ({', '.join(filter(None, told))})" if broke or dull else ""
    return (
        f"{OVER_UPDATES}of {found.read} read, {_were(found.unclean)} not read clean{more} and {found.back} "
        f"brought a concept back: with {certainty(alpha)} certainty {percent(found.back_lower, 1)} to "
        f"{percent(found.upper, 1)} of the population's {what_of(found)} do, and the limit is "
        f"{percent(found.share)}; {ending}."
    )


def way_out(report: Report) -> str:
    """What would decide an undecided population, in half a sentence."""
    found = report.population
    assert found is not None
    broken = [each for each in found.updates if _broke(each)]
    if broken:
        return f"mend what broke ({broken[0].why}), then give the same command again"
    if found.read < found.planned:
        return "the same command goes on; where no more would decide, erase more strongly or raise the limit"
    return f"more updates decide (--updates {2 * found.planned}), in the same folder"


def story(report: Report, found: Population) -> str:
    """The headline of a FAIL that the population alone proves."""
    bad = [each for each in found.updates if each.state == "back"]
    rates = [(rate.hits / rate.images, rate, each) for each in bad for rate in each.rates if rate.back]
    worst = max(rates, key=lambda row: row[0], default=None)
    most = (
        ""
        if worst is None
        else (
            f"; after update {worst[2].number} ({worst[2].member}, {worst[2].steps} steps) "
            f"{worst[1].concept} is drawn in {worst[1].hits} of {worst[1].images} images"
        )
    )
    names = listed(list(dict.fromkeys(rate.concept for _, rate, _ in rates)))
    return (
        f"Came back: {found.back} of {found.read} ordinary updates bring {names or 'a concept'} back{most}; "
        f"at least {percent(found.back_lower, 1)} of such updates do, and the limit is "
        f"{percent(found.share)}."
    )


def _broke(update: UpdateResult) -> bool:
    return update.state == "unclean" and update.why.startswith("It broke")


def _were(count: int) -> str:
    return f"{count} {'was' if count == 1 else 'were'}"
