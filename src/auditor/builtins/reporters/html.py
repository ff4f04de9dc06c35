"""The page: one self-contained HTML file, no network, thumbnails inlined, full images beside it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import jinja2
from markupsafe import Markup

from auditor.builtins.reporters.pictures import after_updates, beside, chosen, damaged, grid, thumbnails
from auditor.builtins.reporters.updates import section
from auditor.plugin.contracts import OptionsModel, Reporter
from auditor.report import CellResult, Report, TrainingSet
from auditor.report.voice import folded, headline, next_box, notes, reasons
from auditor.report.words import (
    NO_PROMISE,
    NOT_DRAWN,
    bounds,
    control_title,
    count,
    deciding,
    explained,
    gate_cells,
    is_drawn,
    line,
    names,
    percent,
    published,
    published_command,
    seconds,
    state_of,
    thresholds,
    was_come_to,
)

_CHARTED = 8  # concepts in the chart; of more the ones with the highest rates
_LONGEST = 5_000


class HtmlOptions(OptionsModel):
    """What is covered until asked for."""

    sensitive: tuple[str, ...] = (
        "nudity",
        "nsfw",
        "explicit",
        "sexual",
        "violence",
        "gore",
        "hate",
        "self-harm",
        "shocking",
    )
    """Domains whose images are blurred until the reader asks for them."""


class Html(Reporter):
    """``report.html``: verdict and reason first, then numbers, charts and pictures."""

    name = "html"
    summary = "one self-contained page: verdict, numbers, charts, pictures side by side"
    filename = "report.html"
    Options: ClassVar[type[OptionsModel]] = HtmlOptions

    def render(self, report: Report, folder: Path) -> bytes:
        """A page whose every string is escaped, and which loads nothing and runs nothing but its own
        filter (Content-Security-Policy)."""
        arms = list(dict.fromkeys(cell.arm for cell in report.cells))
        concepts = list(dict.fromkeys(cell.surface for cell in report.cells if cell.surface))
        charted = _highest(report, concepts)
        script = (
            resources.files("auditor.builtins.reporters")
            .joinpath("templates/report.js")
            .read_text(encoding="utf-8")
        )
        pictures = chosen(report.pictures)
        small = thumbnails([*report.damaged, *report.after_updates, *pictures], folder)
        sensitive = {domain.casefold() for domain in self.options.sensitive}
        grids = [grid(report, pictures, concept, arms, small, sensitive) for concept in concepts]
        top, lost = beside(report, folder, sensitive), damaged(report, small, sensitive)
        after = after_updates(report, small, sensitive)
        shown, more = folded(report)
        return (
            environment()
            .get_template("report.html.j2")
            .render(
                report=report,
                arms=arms,
                concepts=concepts,
                charted=charted,
                erased=[concept["name"] for concept in report.policy["erase"]],
                kept=[concept["name"] for concept in report.policy["retain"]],
                headline=headline(report),
                beside=top,
                damaged=lost,
                shown_reasons=shown,
                more_reasons=reasons(report)[len(shown) :] if more else (),
                next=next_box(report),
                contents=list(contents(report, more=more > 0)),
                summary=summary(report),
                no_promise=NO_PROMISE,
                remarks=notes(report),
                over=section(report),
                after_updates=after,
                training=list(trained(report)),
                limits=thresholds(report),
                gate_count=len(gate_cells(report)),
                rows=list(rows(report)),
                bars=chart(report, arms, charted),
                doses=list(dose_curves(report)),
                grids=grids,
                sensitive=any(each["sensitive"] for each in (*grids, top, *lost, *after)),
                shown=len(pictures),
                script=Markup(script),  # noqa: S704 - a file of this package
                script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            )
            .encode()
        )


def environment() -> jinja2.Environment:
    """Templates of this package, with autoescape on; what is shown has no control or direction characters."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("auditor.builtins.reporters"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: (
            line(value, _LONGEST) if isinstance(value, str) and not isinstance(value, Markup) else value
        ),
    )
    templates.filters["control"] = control_title
    templates.filters["was_come_to"] = was_come_to
    templates.filters["deciding"] = deciding
    templates.filters["percent"] = percent
    templates.filters["count"] = count
    templates.filters["state"] = state_of
    templates.filters["bounds"] = bounds
    templates.filters["published"] = published
    templates.filters["published_command"] = published_command
    templates.globals["docs"] = explained
    templates.globals["not_drawn"] = NOT_DRAWN
    templates.filters["seconds"] = seconds
    # a long list is not cut as a long string is
    templates.filters["names"] = lambda values: Markup.escape(names(values))
    return templates


def summary(report: Report) -> str:
    """The numbers of the verdict in one sentence."""
    cells = gate_cells(report)
    found = [state_of(cell) for cell in cells]
    states = [f"{found.count(state)} {state}" for state in ("held", "failed", "undecided")]
    states += [f"{found.count(NOT_DRAWN)} {NOT_DRAWN}"] if NOT_DRAWN in found else []
    probed = len({cell.arm for cell in cells} - {"erased"})
    return (
        f"{len(cells)} rates decide ({', '.join(states)}): the checkpoint as it is, and in {probed} other "
        f"model states{'.' if report.population is None else '; and the share of ordinary updates.'}"
    )


def trained(report: Report) -> Iterator[TrainingSet]:
    """Training sets one by one: those of a population's updates only where an erased concept was seen in
    one."""
    drawn = set() if report.population is None else {each.name for each in report.population.updates}
    for row in report.training:
        if row.probe not in drawn or any(row.forbidden_hits.values()):
            yield row


def contents(report: Report, *, more: bool) -> Iterator[tuple[str, str]]:
    """(anchor, title) of every section that the page has, in order."""
    curves = any(dose_curves(report))
    sections = (
        ("reasons", "more reasons", more),
        ("audited", "what was audited", True),
        ("updates", "over ordinary updates", report.population is not None),
        ("cells", "every concept after every update", True),
        ("detectors", "other detectors", bool(report.other_detectors)),
        ("chart", "from base to updated", True),
        ("doses", "by training steps", curves),
        ("images", "pictures", True),
        ("damaged", "what was lost", bool(report.damaged)),
        ("controls", "controls", True),
        ("kept", "what was to be kept", True),
        ("distance", "how far weights moved", bool(report.distances)),
        ("coverage", "coverage", True),
        ("provenance", "how to make it again", True),
        ("limits", "what a PASS does not mean", True),
    )
    yield from ((anchor, title) for anchor, title, there in sections if there)


def rows(report: Report) -> Iterator[dict[str, Any]]:
    """The table of cells, the gravest deciding ones first, then what they are compared with."""
    order = ["failed", "undecided", "held", None]
    back = {(row.concept, row.arm): row for row in report.resurgence}
    for cell in sorted(report.cells, key=lambda cell: order.index(cell.state)):
        tone = cell.state or "control"
        yield {"cell": cell, "tone": tone, "bar": bar(cell), "change": back.get((cell.surface, cell.arm))}


def _highest(report: Report, concepts: Sequence[str]) -> list[str]:
    worst = {
        concept: max((c.rate or 0 for c in gate_cells(report) if c.surface == concept), default=0)
        for concept in concepts
    }
    chosen = sorted(concepts, key=lambda concept: -worst[concept])[:_CHARTED]
    return [concept for concept in concepts if concept in chosen]


def chart(report: Report, arms: Sequence[str], concepts: Sequence[str]) -> list[dict[str, Any]]:
    """One group of bars an arm, one bar a concept, as shares of the chart's height."""
    cells = {(cell.arm, cell.surface): cell for cell in report.cells}
    return [{"arm": arm, "bars": [bar(cells[arm, c]) for c in concepts if (arm, c) in cells]} for arm in arms]


def bar(cell: CellResult) -> dict[str, Any]:
    """Height and bounds of one bar, in hundredths."""
    return {
        "concept": cell.surface,
        "drawn": is_drawn(cell),
        "rate": None if cell.rate is None else 100 * cell.rate,
        "lower": 100 * (cell.lower or 0),
        "upper": 100 * (1 if cell.upper is None else cell.upper),
        "state": cell.state or "control",
    }


def dose_curves(report: Report) -> Iterator[dict[str, Any]]:
    """For each probe that was read at several doses and each concept: rates by dose, and where they lie in
    the drawing."""
    found: dict[tuple[str, str], dict[int, list[float]]] = {}
    for row in report.replicates:
        found.setdefault((row.probe, row.concept), {})[row.dose] = [
            rate for rate in row.rates if rate is not None
        ]
    before = {cell.surface: cell.rate for cell in report.cells if cell.arm == "erased"}
    for (probe, concept), points in found.items():
        doses = sorted(points)
        if len(doses) < 2:
            continue
        most = doses[-1]
        at = {dose: 40 + 290 * dose / most for dose in (0, *doses)}
        start = before.get(concept)
        series = ([(0, [start])] if start is not None else []) + [
            (dose, points[dose]) for dose in doses if points[dose]
        ]
        yield {
            "probe": probe,
            "concept": concept,
            "points": series,
            "line": [(at[dose], 160 - 140 * sum(rates) / len(rates)) for dose, rates in series],
            "dots": [(at[dose], 160 - 140 * rate) for dose, rates in series for rate in rates],
            "ticks": [(dose, at[dose]) for dose, _ in series],
        }
