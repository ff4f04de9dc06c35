"""The report as Markdown: for a pull request, a job's summary, a model card."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from auditor.plugin.contracts import Reporter
from auditor.report import Population, Report
from auditor.report.voice import (
    STATES,
    Reason,
    folded,
    headline,
    kinds,
    next_box,
    notes,
    reasons,
    what_was_shown,
)
from auditor.report.words import (
    NO_PROMISE,
    NOT_DRAWN,
    bounds,
    control_title,
    count,
    gate_cells,
    line,
    percent,
    published,
    published_command,
    seconds,
    state_of,
)

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~>-])")
_MOST_REASONS = 20
_MOST_CONTROLS = 100
_MOST_UPDATES = 60
_LONGEST_REMARK = 3000


class Markdown(Reporter):
    """``report.md``: verdict, reasons, a table of the deciding cells, what did not pass, where it comes
    from."""

    name = "markdown"
    summary = "the report as Markdown"
    filename = "report.md"

    def render(self, report: Report, folder: Path) -> bytes:
        """Every string of others escaped, on one line."""
        return document(report, len(gate_cells(report))).encode()


def text(value: str, longest: int = 500) -> str:
    """A string as Markdown shows it, and nothing more: no markup, no HTML, no mention, no link."""
    escaped = _SPECIAL.sub(r"\\\1", line(value, longest)).replace("&", "&amp;").replace("<", "&lt;")
    return escaped.replace("@", "&#64;").replace("://", ":&#47;&#47;").replace("www.", "www&#46;")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table; its cells are escaped here."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(text(each) for each in row) + " |" for row in rows]


def document(report: Report, most_rows: int, level: str = "#") -> str:
    """The whole of it, with at most ``most_rows`` rows in the table of cells."""
    verdict, cells = report.verdict, gate_cells(report)
    origin = f" ({verdict.origin})" if verdict.origin else ""
    lines = [f"{level} {verdict.outcome}{origin}: {text(published(report.title))}", ""]
    shown, more = folded(report)
    lines += [text(headline(report), _LONGEST_REMARK), "", *map(_reason, shown)]
    lines += [f"- and {more} more below"] if more else []
    lines += [f"- {text(remark, _LONGEST_REMARK)}" for remark in notes(report)]
    step = next_box(report)
    lines += ["", f"{level}# What to do next", ""]
    lines += [f"- {text(each, _LONGEST_REMARK)}" for each in (*step.lines, step.link)]
    if more:
        rest = reasons(report)[len(shown) :]
        lines += ["", f"{level}# More reasons", "", *map(_reason, rest[:_MOST_REASONS])]
        left = len(rest) - _MOST_REASONS
        lines += [f"- … and {left} more in report.json"] if left > 0 else []
    if report.population is not None:
        lines += ["", f"{level}# Over ordinary updates", "", *share_of_updates(report)]
        lines += _updates(report.population)
    lines += ["", f"{level}# Deciding checks", ""]
    gravest = sorted(cells, key=lambda cell: ("failed", "undecided", "held").index(cell.state or "held"))
    head = ("concept", "model state", "detected", "rate", "lower", "upper", "state")
    lines += table(
        head,
        (
            (
                cell.surface,
                cell.arm,
                count(cell),
                percent(cell.rate),
                *(percent(bound, 1) for bound in bounds(cell)),
                state_of(cell),
            )
            for cell in gravest[:most_rows]
        ),
    )
    lines += (
        ["", f"… and {len(cells) - most_rows} more checks in report.json"] if len(cells) > most_rows else []
    )
    lines += _other_detectors(report, most_rows, level)
    failed = [control for control in report.controls if control.passed is False]
    if failed:
        listed = failed[:_MOST_CONTROLS]
        lines += ["", f"{level}# Controls that did not pass", ""]
        lines += table(
            ("control", "model state", "what was found"),
            ((control_title(control.name), control.arm, control.sentence) for control in listed),
        )
        lines += (
            ["", f"… and {len(failed) - len(listed)} more in report.json"]
            if len(failed) > len(listed)
            else []
        )
    lines += ["", f"{level}# Where it comes from", "", *_facts(report), "", NO_PROMISE]
    return "\n".join(lines) + "\n"


def share_of_updates(report: Report) -> list[str]:
    """What is shown of the population, its kinds and the share of each concept; nothing where the policy has
    none."""
    found = report.population
    if found is None:
        return []
    head = ("concept", "read", "not clean", "share is below", "limit", "mean rate", "state")
    rows = (
        (
            share.concept or "all pairs",
            str(found.read),
            str(share.unclean),
            percent(share.upper, 1) if found.read else "–",
            percent(found.share),
            f"{percent(share.mean_lower, 1)} to {percent(share.mean_upper, 1)}"
            if found.read and share.concept
            else "–",
            "held" if share.held else "failed" if found.failed else "undecided",
        )
        for share in found.shares
    )
    return [
        text(what_was_shown(report), _LONGEST_REMARK),
        "",
        *(f"- {text(kind.said)}" for kind in kinds(found)),
        "",
        *table(head, rows),
        "",
    ]


def _updates(found: Population) -> list[str]:
    """The updates that were not read clean, the gravest first."""
    grave = list(STATES)
    shown = [each for each in found.updates if each.state != "clean"]
    shown.sort(key=lambda each: grave.index(each.state))
    rows = (
        (
            str(each.number),
            each.member,
            "–" if each.steps is None else str(each.steps),
            "; ".join(f"{rate.concept} {rate.hits} of {rate.images}" for rate in each.rates if rate.images)
            or NOT_DRAWN,
            STATES[each.state],
            each.why,
        )
        for each in shown[:_MOST_UPDATES]
    )
    if not shown:
        return []
    more = len(shown) - _MOST_UPDATES
    return [
        *table(("update", "kind", "steps", "detected", "state", "why"), rows),
        *(["", f"… and {more} more in report.json"] if more > 0 else []),
    ]


def _reason(reason: Reason) -> str:
    return f"- {text(reason.whole, _LONGEST_REMARK)}"


def _other_detectors(report: Report, most_rows: int, level: str) -> list[str]:
    """What detectors beside the gate say of the checks that decide."""
    found = [reading for reading in report.other_detectors if reading.role == "gate"]
    if not found:
        return []
    rows = (
        (
            reading.detector,
            reading.surface,
            reading.arm,
            count(reading),
            *(percent(bound, 1) for bound in bounds(reading)),
            percent(reading.agreement),
        )
        for reading in found[:most_rows]
    )
    head = (
        "detector",
        "concept",
        "model state",
        "detected",
        "lower",
        "upper",
        "agrees with the deciding one",
    )
    more = len(found) - most_rows
    return [
        "",
        f"{level}# Other detectors, which decide nothing",
        "",
        *table(head, rows),
        *(["", f"… and {more} more in report.json"] if more > 0 else []),
    ]


def _facts(report: Report) -> list[str]:
    provenance = report.provenance
    rows = {
        "checkpoint": f"{published(report.checkpoint.source)}, sha256 {report.checkpoint.digest}",
        "base": f"{published(report.base.source)}, sha256 {report.base.digest}" if report.base else "none",
        "policy": f"sha256 {report.policy_digest}",
        "made with": ", ".join(f"{name} {version}" for name, version in provenance.versions.items())
        + f", on {provenance.device}",
        "images": f"{report.ledger.measured} measured, {report.ledger.missing} missing, "
        f"{report.ledger.not_drawn} not drawn",
        "took": f"{seconds(provenance.seconds)} of measuring, attempt {provenance.attempt} on this machine",
        "again": published_command(provenance.command),
    }
    return [f"- {name}: {text(value)}" for name, value in rows.items()]
