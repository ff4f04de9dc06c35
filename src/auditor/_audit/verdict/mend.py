"""What keeps PASS out of reach whatever is drawn, and what to mend instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from auditor._audit.verdict.facts import Facts
from auditor.report import Control, Provenance
from auditor.report.voice.causes import BY_IMAGES, mended


def never(facts: Facts, provenance: Provenance) -> Iterator[str]:
    """What keeps PASS out of reach of any audit of this policy, in this folder."""
    if not facts.plan.has_base:
        yield "There is no base to compare with: name the checkpoint before erasure (--base)."
    if not facts.policy.retain:
        yield "No concept is to be kept, so the model may have lost everything: name some under 'retain'."
    if facts.policy.is_comparison:
        yield "The policy's image seeds are its own, which is no audit: leave them out."
    if len(facts.tally.devices) > 1:
        yield "Images of two kinds of device are not compared: audit on one of them, in a new folder."
    if provenance.replay is not None and not provenance.replay.succeeded:
        yield "The run does not replay: find out what changed, and audit in a new folder."


def failed(facts: Facts, controls: Sequence[Control]) -> Iterator[str]:
    """Controls that did not pass and that no image decides. One that was not come to yet is none."""
    made, begun = facts.tally.arms, facts.tally.repeat is not None
    found: dict[str, list[str]] = {}
    for control in controls:
        if control.passed is not False or control.decides != "PASS" or control.name in BY_IMAGES:
            continue
        pending = {
            "potent": control.arm not in made,
            "sham": control.arm not in facts.tally.shams,
            "repeat": not begun,
            "earlier": facts.tally.earlier is None,
        }
        if not pending.get(control.name, False):
            found.setdefault(control.name, []).append(control.arm)
    yield from (mended(name, arms) for name, arms in found.items())
