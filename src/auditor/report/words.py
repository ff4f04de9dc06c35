"""What every form of a report says in the same words, and how strings of others are made harmless in a
line of text."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from auditor.report import CellResult, Control, DetectorReading, Outcome, Report

MEANINGS = {
    Outcome.PASS: "Held: no erased concept came back under the probes of this policy.",
    Outcome.FAIL: "An erased concept is there.",
    Outcome.INCONCLUSIVE: "Not shown either way. This is no PASS.",
    Outcome.ERROR: "Something that was planned broke. This is no PASS.",
}
"""One sentence an outcome."""

RUN_ENDED = "The run ended early"
"""How a reason begins that says why a run ended before its budget of images."""

DOCS = "https://auditor.example/docs"
"""Where the documentation of this version is read."""

NO_PROMISE = (
    "A PASS speaks of the prompts, probes, training steps and detector named here, and of nothing else: "
    "longer training or an attacker may still bring a concept back."
)

_CONTROLS = {
    "vocabulary": "vocabulary",
    "text encoder": "text encoder",
    "autoencoder": "autoencoder",
    "negative": "false positives",
    "positive": "sensitivity",
    "assay": "utility of the base",
    "alive": "utility",
    "potent": "took effect",
    "sham": "no-op control",
    "repeat": "repeatability",
    "earlier": "earlier evidence",
}

_LONGEST = 500


def line(text: str, longest: int = _LONGEST) -> str:
    """``text`` on one line without control, format or direction characters, and cut to ``longest``
    characters."""
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in cut)


_COMMANDS = re.compile(r":(?=:)|##(?=\S)|section_(?=start:|end:)|travis_(?=fold|time)")


def harmless(text: str) -> str:
    """A line for a log that a CI may read commands from: none of them is left.

    GitHub's ``::error::`` and ``##[error]``, Azure's ``##vso[…]``, TeamCity's ``##teamcity[…]``, GitLab's and
    Travis' folded sections.
    """
    return _COMMANDS.sub(lambda found: found[0] + " ", text)


def is_base(arm: str) -> bool:
    """Is a model state the base: as it is, or drawn and asked as a probe does it (``base.NAME``)?"""
    return arm.split(".")[0] == "base"


def control_title(name: str) -> str:
    """What every form calls a control, by its name in the report (``docs/glossary.md``)."""
    return _CONTROLS.get(name, name)


def percent(value: float | None, digits: int = 0) -> str:
    """A share in per cent, 0 and 100 only where it is; a dash where there is none."""
    if value is None:
        return "–"
    if digits == 0 and 0 < value < 1 and not 0.005 <= value < 0.995:
        return f"{value:.1%}" if 0.0005 <= value < 0.9995 else ("< 0.1%" if value < 0.5 else "> 99.9%")
    return f"{value:.{digits}%}"


def explained(page: str, anchor: str = "") -> str:
    """The address of a page of the documentation, for instance ``explained("controls", "Took effect")``."""
    slug = re.sub(r"[^a-z0-9]+", "-", anchor.casefold()).strip("-")
    return f"{DOCS}/{page}.html" + (f"#{slug}" if slug else "")


def alpha(report: Report) -> float:
    """The level of every bound in a report."""
    return float(report.policy["limits"]["alpha"])


def level_of_fail(report: Report) -> float:
    """The level at which one check alone, or the share of updates, proves FAIL, by Holm."""
    return alpha(report) / max(1, len(gate_cells(report)) + (report.population is not None))


def certainty(alpha: float) -> str:
    """How sure a one-sided bound at level ``alpha`` is, in per cent, rounded down."""
    return f"{math.floor(1e3 * (1 - alpha) + 1e-6) / 10:g}%"


def listed(values: Sequence[str], most: int = 6) -> str:
    """``a, b and c``; of more than ``most`` how many are left out."""
    shown = list(values) if len(values) <= most else [*values[: most - 1], f"{len(values) - most + 1} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else ""


def is_path(text: str) -> bool:
    """Is this a place on somebody's disk, seen from its root?"""
    return text.startswith(("/", "~", "file:")) or bool(re.match(r"[A-Za-z]:[\\/]", text))


def published(text: str) -> str:
    """A name as a page shows it that strangers read: of a place on somebody's disk the last part alone."""
    return re.split(r"[\\/]", text.rstrip("\\/"))[-1] if is_path(text) else text


def published_command(command: str) -> str:
    """A command line as a page shows it that strangers read."""
    words = split_command(command)
    parts = [word.partition("=") if word.startswith("-") else ("", "", word) for word in words]
    shown = [f"{key}{sign}{published(value)}" for key, sign, value in parts]
    return shlex.join(shown)


def split_command(command: str) -> list[str]:
    """The words of a command line of a report, which may be anybody's; none where it is none of an audit."""
    try:
        words = shlex.split(command)
    except ValueError:
        return []
    return words if words[:2] == ["auditor", "audit"] else []


def names(values: Iterable[str]) -> str:
    """A list of names on one line, each of them cut if it is long, none of them left out."""
    return ", ".join(line(value, 200) for value in values)


def seconds(value: float) -> str:
    """``73 s`` or ``4 min 10 s``."""
    return f"{value:.0f} s" if value < 100 else f"{int(value) // 60} min {int(value) % 60} s"


def thresholds(report: Report) -> tuple[float, float]:
    """(tau_P, tau_F) of the report's policy."""
    from auditor.policy import Limits

    limits = Limits.model_validate_json(json.dumps(report.policy["limits"]))
    return (
        (limits.tau, limits.tau)
        if report.policy["claim"] == "detector"
        else (limits.tau_pass, limits.tau_fail)
    )


def remarks(report: Report, *, weaker: bool = True) -> tuple[str, ...]:
    """What a reader of any verdict must know of what was asked and of what was audited, one sentence each;
    ``weaker``: also what of it is weaker than the defaults."""
    found = [f"Weaker than the default: {'; '.join(report.weaker)}."] if report.weaker and weaker else []
    checkpoint = report.checkpoint
    if checkpoint.content:
        found.append(f"Laid over the base: {checkpoint.content}.")
    if checkpoint.chosen:
        said = ", ".join(f"{what} = {value}" for what, value in sorted(checkpoint.chosen.items()))
        found.append(
            f"The checkpoint's files do not say one thing; audited is what was chosen: {said}. Who loads it "
            "otherwise loads another model."
        )
    if checkpoint.beside:
        found.append(
            "Beside the audited weights lie others, which this report says nothing of: "
            f"{names(checkpoint.beside)}."
        )
    if not checkpoint.beside_known:
        found.append(
            "The Hub was not asked what else the repository holds; other weights in it were not audited."
        )
    return (*found, *report.beside_unet)


def next_steps(report: Report, out: Path | None = None) -> tuple[str, ...]:
    """What would decide an INCONCLUSIVE report, or what to mend, in sentences; the command last. ``out``: the
    run's folder from here, where it is at hand."""
    step = report.next_step
    if step is None:
        return ()
    found = (step.sentence, *step.mend)
    if step.command is None:
        return found
    words = split_command(step.command)
    if out is not None and "--out" in words[:-1]:
        words[words.index("--out") + 1] = str(out)
    return (*found, shlex.join(words)) if words else found


def gate_cells(report: Report) -> list[CellResult]:
    """The cells that decide."""
    return [cell for cell in report.cells if cell.state is not None]


NOT_DRAWN = "not drawn"
"""Of whatever no image was drawn for: it has no rate, no bounds and no state."""


def was_come_to(control: Control) -> bool:
    """Was anything measured for a control before the run ended?"""
    begun = not control.sentence.startswith(NOT_DRAWN.capitalize())
    return begun and (control.name != "repeat" or control.n > 0)


def deciding(report: Report) -> str:
    """The detectors that the verdict rests on, by name."""
    gate = report.policy.get("gate", {})
    vote = gate.get("decision", {}).get("vote") or {}
    named = vote.get("detectors") or [gate.get("detector") or report.policy["detectors"][0]["use"]]
    return names(named)


def rate_of(cell: CellResult) -> float:
    """The share of images that show a check's concept, of those that are there; 0 where none is."""
    return cell.rate or 0.0


def is_drawn(row: CellResult | DetectorReading) -> bool:
    """Is there a whole round of images, so that a rate and bounds can be said?"""
    return row.images > 0


def state_of(cell: CellResult) -> str:
    """A cell's state in words; empty where it does not decide."""
    return "" if cell.state is None else str(cell.state) if cell.n or cell.images else NOT_DRAWN


def bounds(row: CellResult | DetectorReading) -> tuple[float | None, float | None]:
    """(lower, upper) where there are any; older reports say 0 and 1 of what was never drawn."""
    return (row.lower, row.upper) if is_drawn(row) else (None, None)


def count(cell: CellResult | DetectorReading) -> str:
    """What was seen in a cell, in words."""
    if not is_drawn(cell):
        begun = cell.n if isinstance(cell, CellResult) else cell.compared
        return f"{begun} images, no whole round" if begun else NOT_DRAWN
    if isinstance(cell, DetectorReading):
        return f"{cell.hits} of {cell.images}" + (f", {cell.missing} missing" if cell.missing else "")
    missing = f", {cell.missing} missing" if cell.missing else ""
    found = f", {cell.found} with anything to judge" if cell.found is not None else ""
    return f"{cell.hits} of {cell.images}{missing}{found}"
