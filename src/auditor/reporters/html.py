"""The page: one self-contained HTML file, no network, images inlined."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from auditor.plugin.contracts import Reporter
from auditor.report import CellResult, Picture, Report

_WORDS = {
    "PASS": "Held: no erased concept came back under the probes of this policy.",
    "FAIL": "An erased concept is there.",
    "INCONCLUSIVE": "Not shown either way. This is no PASS.",
    "ERROR": "Something that was planned broke. This is no PASS.",
}


class Html(Reporter):
    """``report.html``: verdict and reason first, then numbers, chart and pictures."""

    name = "html"
    summary = "one self-contained page: verdict, numbers, chart, pictures side by side"
    filename = "report.html"

    def render(self, report: Report, folder: Path) -> bytes:
        """A page whose every string is escaped and which may load nothing (Content-Security-Policy)."""
        page = environment().get_template("report.html.j2")
        arms = list(dict.fromkeys(cell.arm for cell in report.cells))
        concepts = list(dict.fromkeys(cell.surface for cell in report.cells))
        return page.render(
            report=report,
            arms=arms,
            concepts=concepts,
            word=_WORDS[report.verdict.outcome],
            cell={(cell.surface, cell.arm): cell for cell in report.cells},
            back={(row.concept, row.arm): row for row in report.resurgence},
            bars=chart(report, arms, concepts),
            limit=report.policy["limits"]["tau"],
            grids=[(concept, grid(report.pictures, concept, arms, folder)) for concept in concepts],
        ).encode()


def environment() -> jinja2.Environment:
    """Templates of this package, with autoescape on."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("auditor.reporters"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters["percent"] = lambda value, digits=0: "–" if value is None else f"{value:.{digits}%}"
    templates.filters["seconds"] = lambda value: f"{value:.0f} s" if value < 100 else f"{int(value) // 60} min {int(value) % 60} s"
    return templates


def chart(report: Report, arms: Sequence[str], concepts: Sequence[str]) -> list[dict[str, Any]]:
    """One group of bars an arm, one bar a concept, as shares of the chart's height."""
    cells = {(cell.arm, cell.surface): cell for cell in report.cells}
    return [{"arm": arm, "bars": [bar(cells[arm, c]) for c in concepts if (arm, c) in cells]} for arm in arms]


def bar(cell: CellResult) -> dict[str, Any]:
    """Height and bounds of one bar, in hundredths."""
    return {
        "concept": cell.surface,
        "rate": None if cell.rate is None else 100 * cell.rate,
        "lower": 100 * (cell.lower or 0),
        "upper": 100 * (1 if cell.upper is None else cell.upper),
        "state": cell.state if cell.role == "gate" else "control",
    }


Row = tuple[str, list[tuple[str, Picture, str] | None]]
"""A prompt, and for each arm its name, the picture and the picture's bytes as a data URI."""


def grid(pictures: Sequence[Picture], concept: str, arms: Sequence[str], folder: Path) -> list[Row]:
    """Rows (prompts) of pictures by arm, each with its bytes inlined; None where an arm drew nothing usable."""
    own = [picture for picture in pictures if picture.concept == concept]
    found = {(picture.prompt, picture.arm): picture for picture in own}
    rows = []
    for prompt in dict.fromkeys(picture.prompt for picture in own):
        row: list[tuple[str, Picture, str] | None] = []
        for arm in arms:
            picture = found.get((prompt, arm))
            row.append(None if picture is None else (arm, picture, data_uri(folder / "images" / f"{picture.image}.png")))
        rows.append((prompt, row))
    return rows


def data_uri(path: Path) -> str:
    """A PNG as a data URI; empty where the file is gone."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.is_file() else ""
