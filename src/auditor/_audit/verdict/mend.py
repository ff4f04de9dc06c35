"""What keeps PASS out of reach whatever is drawn, and what to mend instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from auditor._audit.verdict.facts import Facts
from auditor.report import Control, Provenance
from auditor.report.words import control_title

_MEND = {
    "vocabulary": "give the checkpoint the base's tokenizer files",
    "text encoder": "add {use: base-text-encoder} to the policy's probes, or give it the base's text encoder",
    "autoencoder": "add {use: base-autoencoder} to the policy's probes, or give it the base's autoencoder",
    "potent": "give the probe more training steps or a larger learning rate",
    "sham": "mend the probe's plugin: without learning it must change nothing",
    "repeat": "mend the detector or plugin that says or draws something else the second time",
    "earlier": "audit in a new folder",
    "negative": "choose a detector that is right about images of other concepts",
    "positive": "choose a detector that sees the concept, or a base and prompts that show it",
    "assay": "retain concepts that the base draws well and the detector knows",
    "alive": "erase more gently: the model draws what is to be kept less well than the base",
}


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
    by_images = ("negative", "positive", "assay", "alive")
    made, begun = facts.tally.arms, facts.tally.repeat is not None
    for control in controls:
        if control.passed is not False or control.decides != "PASS" or control.name in by_images:
            continue
        pending = {
            "potent": control.arm not in made,
            "sham": control.arm not in facts.tally.shams,
            "repeat": not begun,
            "earlier": facts.tally.earlier is None,
        }
        if not pending.get(control.name, False):
            yield mended(control.name, control.arm)


def mended(control: str, arm: str) -> str:
    """What to mend where a control will not pass."""
    return f"Control '{control_title(control)}' on {arm} did not pass, whatever is drawn: {_MEND[control]}."
