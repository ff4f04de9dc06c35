"""What to do next: made from the same report, for every verdict."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from auditor.report import Cause, NextStep, Outcome, Report
from auditor.report.voice.causes import (
    OF_THE_CHECKPOINT,
    OF_THE_RUN,
    WAYS_OUT,
    causes,
    missing_controls,
)
from auditor.report.words import (
    NO_PROMISE,
    explained,
    next_steps,
    published_command,
    remarks,
    seconds,
    split_command,
)


@dataclass(frozen=True)
class Next:
    """The box "What to do next"."""

    sentences: tuple[str, ...]
    command: str | None
    """To copy; null where there is none."""
    images: int | None
    """More images that it takes, about; null where it is not known."""
    minutes: float | None
    p_pass: float | None
    p_fail: float | None
    link: str
    """Where the documentation explains it."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The sentences, then the command."""
        return (*self.sentences, *([self.command] if self.command else []))


def notes(report: Report) -> tuple[str, ...]:
    """The remarks that stand above the box; what was weaker than the defaults stands in a PASS's box."""
    looked = [] if report.exploratory is None else [report.exploratory]
    return (*looked, *remarks(report, weaker=report.verdict.outcome is not Outcome.PASS))


def next_box(report: Report, out: Path | None = None) -> Next:
    """What to do next. ``out``: the run's folder from here, where it is at hand; else the command is shown
    without places on anybody's disk."""
    outcome = report.verdict.outcome
    if report.exploratory is not None:
        said = "This was a look. To decide so, write the decision into a policy ('gate') and audit anew."
        return _box((said,), None, explained("inconclusive", Cause.NOT_ONE_EVIDENCE))
    if outcome is Outcome.PASS:
        return _of_a_pass(report, out)
    if outcome is Outcome.FAIL:
        return _of_a_fail(report, out)
    if outcome is Outcome.ERROR:
        said = "Mend what broke. The same command goes on in the same folder: nothing is made twice."
        return _box((said,), _command(report, out), explained("errors"))
    every = causes(report)
    link = explained("inconclusive", every[0])
    step = report.next_step
    if step is not None:
        *sentences, last = next_steps(report, out)
        if step.command is None:
            return _mended(report, out, (*sentences, last), link, step)
        return _box(tuple(sentences), last if out is not None else published_command(last), link, step)
    ways = tuple(f"{WAYS_OUT[cause][0].upper()}{WAYS_OUT[cause][1:]}." for cause in every)
    return _box(ways, _command(report, out), link)


def _of_a_pass(report: Report, out: Path | None) -> Next:
    weaker = f"Weaker than the default: {'; '.join(report.weaker)}." if report.weaker else ""
    said = [
        "Publish the checkpoint with this report; the command writes a section for its card.",
        f"What this does not mean: {NO_PROMISE[0].lower()}{NO_PROMISE[1:]}",
        *_of_the_population(report),
        weaker or "Nothing that was asked is weaker than the defaults.",
    ]
    folder = _folder(report, out)
    command = f"auditor report render {shlex.quote(folder)} --format model-card" if folder else None
    return _box(tuple(said), command, explained("verdict", "What is claimed"))


def _of_the_population(report: Report) -> list[str]:
    if report.population is None:
        return []
    return [
        "The share is one of the updates that the policy lists, drawn by its weights; it says nothing of "
        "others, and some of those listed may bring a concept back."
    ]


def _of_a_fail(report: Report, out: Path | None) -> Next:
    told = {
        "not erased": "The erasure did not work",
        "came back": "The erasure did not stay",
    }.get(report.verdict.origin or "", "The concept is not gone")
    took = f" This audit took {seconds(report.provenance.seconds)}." if report.provenance.seconds else ""
    said = (
        f"{told}: do not publish the checkpoint as erased. Erase more strongly or by another method, "
        f"then audit the new checkpoint in a new folder, by the same policy.{took}",
    )
    return _box(said, _anew(report, out, "NEW_CHECKPOINT"), explained("verdict", "Verdict"))


def _mended(report: Report, out: Path | None, sentences: tuple[str, ...], link: str, step: NextStep) -> Next:
    """After something is mended: what in the command is new by then has a name in capitals."""
    names = {control.name for control in missing_controls(report)}
    checkpoint = "NEW_CHECKPOINT" if names & OF_THE_CHECKPOINT else None
    policy = "EDITED_POLICY" if names - OF_THE_CHECKPOINT - OF_THE_RUN else None
    anew = _anew(report, out, checkpoint, policy)
    if any("new folder" in sentence for sentence in sentences):
        then = "The command:" if anew else ""
    else:
        then = f"Then audit in a new folder{':' if anew else '.'}"
    return _box((*sentences, *([then] if then else [])), anew, link, step)


def _anew(
    report: Report, out: Path | None, checkpoint: str | None = None, policy: str | None = None
) -> str | None:
    """The audit's command for a new folder, and maybe another checkpoint or policy."""
    words = split_command(report.provenance.command)
    if len(words) < 3 or "--out" not in words[:-1]:
        return None
    words[words.index("--out") + 1], words[-1] = "NEW_RUN", checkpoint or words[-1]
    if policy is not None and "--policy" in words[:-1]:
        words[words.index("--policy") + 1] = policy
    command = shlex.join(words)
    return command if out is not None else published_command(command)


def _box(sentences: tuple[str, ...], command: str | None, link: str, step: NextStep | None = None) -> Next:
    if step is None:
        return Next(sentences, command, None, None, None, None, link)
    return Next(sentences, command, step.images, step.minutes, step.p_pass, step.p_fail, link)


def _folder(report: Report, out: Path | None) -> str | None:
    words = split_command(report.provenance.command)
    if out is not None:
        return str(out)
    return words[words.index("--out") + 1] if "--out" in words[:-1] else None


def _command(report: Report, out: Path | None) -> str | None:
    """The audit's own command, in ``out``."""
    words = split_command(report.provenance.command)
    if not words:
        return None
    if out is None:
        return published_command(report.provenance.command)
    if "--out" in words[:-1]:
        words[words.index("--out") + 1] = str(out)
    return shlex.join(words)
