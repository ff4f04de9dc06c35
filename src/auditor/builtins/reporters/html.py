"""The page: one self-contained HTML file, no network, thumbnails inlined, full images beside it."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import jinja2
from markupsafe import Markup
from PIL import Image

from auditor.plugin.contracts import OptionsModel, Reporter
from auditor.report import CellResult, Picture, Report
from auditor.report.words import (
    MEANINGS,
    NO_PROMISE,
    NOT_DRAWN,
    bounds,
    control_title,
    count,
    gate_cells,
    is_base,
    is_drawn,
    line,
    names,
    next_steps,
    percent,
    remarks,
    seconds,
    state_of,
    thresholds,
)

_CHARTED = 8  # concepts in the chart; of more the ones with the highest rates
_THUMBNAIL = 96  # pixels a side
_MOST_THUMBNAILS = 1_500
_MOST_BYTES = 2_800_000  # of thumbnails, as text
_MOST_PICTURES = 4_000
_LONGEST = 5_000
_BAR = 26


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
        small = thumbnails(pictures, folder)
        sensitive = {domain.casefold() for domain in self.options.sensitive}
        grids = [grid(report, pictures, concept, arms, small, sensitive) for concept in concepts]
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
                word=MEANINGS[report.verdict.outcome],
                summary=summary(report),
                no_promise=NO_PROMISE,
                remarks=remarks(report),
                steps=next_steps(report),
                limits=thresholds(report),
                gate_count=len(gate_cells(report)),
                rows=list(rows(report)),
                bars=chart(report, arms, charted),
                step=max(90, _BAR * len(charted) + 24),
                doses=list(dose_curves(report)),
                grids=grids,
                sensitive=any(each["sensitive"] for each in grids),
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
    templates.filters["percent"] = percent
    templates.filters["count"] = count
    templates.filters["state"] = state_of
    templates.filters["bounds"] = bounds
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
        "model states."
    )


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


# -- pictures ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """A picture with its thumbnail as a data URI, empty where the page has no room for it or the file is
    gone."""

    picture: Picture
    uri: str


Place = tuple[str, str, str, int]
"""Arm, concept, prompt and number: where a picture stands."""


def chosen(pictures: Sequence[Picture]) -> list[Picture]:
    """What the page has room for: the first of every prompt, then rows in which the concept was seen after
    erasure, then the rest."""
    first: dict[tuple[str, str], int] = {}
    for picture in pictures:
        key = (picture.concept, picture.prompt)
        first[key] = min(picture.index, first.get(key, picture.index))
    seen = {(p.concept, p.prompt, p.index) for p in pictures if p.hit and not is_base(p.arm)}

    def rank(picture: Picture) -> int:
        if picture.index == first[picture.concept, picture.prompt]:
            return 0
        return 1 if (picture.concept, picture.prompt, picture.index) in seen else 2

    return sorted(pictures, key=rank)[:_MOST_PICTURES]


def place_of(picture: Picture) -> Place:
    """Where it stands."""
    return picture.arm, picture.concept, picture.prompt, picture.index


def thumbnails(pictures: Sequence[Picture], folder: Path) -> dict[Place, str]:
    """Small copies of a run's images as data URIs, by where they stand, in the order given, while there is
    room."""
    found: dict[Place, str] = {}
    made: dict[str, str] = {}
    room = _MOST_BYTES
    for picture in pictures:
        if len(found) == _MOST_THUMBNAILS or room <= 0:
            break
        if picture.image not in made:
            made[picture.image] = _thumbnail(folder, picture.image)
        if made[picture.image]:
            found[place_of(picture)] = made[picture.image]
            room -= len(made[picture.image])
    return found


def _thumbnail(folder: Path, image: str) -> str:
    """One small copy; empty where the file is gone or is no picture."""
    if not re.fullmatch(r"[0-9a-f]{64}", image):
        return ""
    try:
        with Image.open(folder / "images" / f"{image}.png", formats=("PNG",)) as opened:
            small = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError):
        return ""
    if max(small.size) > _THUMBNAIL:
        small = small.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX, reducing_gap=2.0)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=80, method=2)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def grid(
    report: Report,
    pictures: Sequence[Picture],
    concept: str,
    arms: Sequence[str],
    small: Mapping[Place, str],
    sensitive: Collection[str] = (),
) -> dict[str, Any]:
    """Rows (prompt and number) of pictures by arm, the first of every prompt first; None where an arm drew
    nothing usable."""
    domains = {each["name"]: each["domain"].casefold() for each in report.policy["erase"]}
    owners = {cell.concept for cell in report.cells if cell.surface == concept}
    found: dict[tuple[int, str], dict[str, Picture]] = {}
    for picture in pictures:
        if picture.concept == concept:
            found.setdefault((picture.index, picture.prompt), {})[picture.arm] = picture
    lines, begun = [], set[str]()
    for (index, prompt), own in sorted(found.items(), key=lambda item: item[0][0]):
        hit = any(picture.hit for arm, picture in own.items() if not is_base(arm))
        items = [Shown(own[arm], small.get(place_of(own[arm]), "")) if arm in own else None for arm in arms]
        lines.append(
            {"prompt": prompt, "index": index, "hit": hit, "items": items, "first": prompt not in begun}
        )
        begun.add(prompt)
    return {
        "concept": concept,
        "rows": lines,
        "sensitive": any(domains.get(owner) in sensitive for owner in owners),
    }
