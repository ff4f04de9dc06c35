"""Draws a study's figures as SVG: bars of estimates with intervals and a dot a replicate; points of what
might decide resurgence."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from auditor._stats.contrasts import Estimate
from auditor._study.document import Figure
from auditor._study.findings import Findings
from auditor.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from auditor._study.page import Grid

BEFORE, AFTER = "#8fa9c4", "#c0392b"
_POINTS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
_CELL = 0.72  # inches that a picture takes


def check_matplotlib() -> None:
    """Raise :class:`UsageError` where figures cannot be drawn; asked before anything is measured."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "Studies draw their figures with matplotlib: pip install 'auditor[study]'."
        ) from error


def bars(findings: Findings, figure: Figure) -> bytes:
    """The figure of one question: every bar's measure before and after its probe; a change has one bar.

    What was not measured in every replicate has no bar and says so.
    """
    measure = figure.measure
    one = measure == "resurgence" or measure.startswith("change of ")
    share = not one and findings.is_share(measure)
    sides = (
        [(AFTER, "change", True)] if one else [(BEFORE, "erased", False), (AFTER, "after the probe", True)]
    )
    canvas, axes = _canvas(max(4.5, 1.1 * len(figure.bars) + 1.8), 3.2)
    width = 0.8 / len(sides)
    for number, (colour, label, probed) in enumerate(sides):
        estimates = [findings.estimate(bar, measure, probed) for bar in figure.bars]
        for at, estimate in enumerate(estimates):
            left = at + (number - (len(sides) - 1) / 2) * width
            if estimate is None:
                axes.text(left, 0, "not\nmeasured", ha="center", va="bottom", fontsize=7, rotation=90)
            else:
                _bar(axes, left, width, estimate, colour, share=share)
        axes.bar([0], [0], color=colour, label=label)
    axes.set_xticks(
        range(len(figure.bars)), [bar.label.replace(" | ", "\n") for bar in figure.bars], parse_math=False
    )
    axes.set_ylabel(
        {"detected": "erased concepts detected", "retained": "retained concepts right"}.get(measure, measure)
    )
    axes.set_xlabel(figure.axis, parse_math=False)
    if share:
        axes.set_ylim(0, 1.02)
    axes.axhline(0, color="black", linewidth=0.8)
    if not one:
        axes.legend(frameon=False, fontsize=8, loc="upper right", bbox_to_anchor=(1, 1.16), ncols=2)
    return _svg(canvas)


def _bar(axes: Axes, at: float, width: float, estimate: Estimate, colour: str, *, share: bool) -> None:
    lower, upper = estimate.interval()
    if share:
        lower, upper = max(0.0, lower), min(1.0, upper)
    axes.bar([at], [estimate.value], width * 0.92, color=colour)
    value = estimate.value
    axes.errorbar(
        [at],
        [value],
        [[max(0.0, value - lower)], [max(0.0, upper - value)]],
        color="black",
        capsize=3,
        linewidth=1,
    )
    count = len(estimate.values)
    spread = [at + width * 0.18 * (row - (count - 1) / 2) for row in range(count)]
    axes.plot(
        spread,
        estimate.values,
        "o",
        markersize=3.5,
        markerfacecolor="white",
        markeredgecolor="black",
        markeredgewidth=0.7,
        zorder=5,
    )


def points(rows: Sequence[dict[str, Any]], properties: Sequence[str], target: str = "resurgence") -> bytes:
    """Each property against what came back: one panel a property, one colour and mark an eraser."""
    methods = sorted({row["method"] for row in rows})
    across = min(3, len(properties))
    down = -(-len(properties) // across)
    canvas, _ = _canvas(3.4 * across, 2.8 * down, axes=False)
    grid: Any = canvas.subplots(down, across, sharey=True, squeeze=False)
    for number, axes in enumerate(grid.flat):
        if number >= len(properties):
            axes.set_visible(False)
            continue
        for row, method in enumerate(methods):
            own = [each for each in rows if each["method"] == method and each[properties[number]] is not None]
            axes.plot(
                [each[properties[number]] for each in own],
                [each[target] for each in own],
                _MARKS[row % len(_MARKS)],
                color=_POINTS[row % len(_POINTS)],
                markersize=4.5,
                alpha=0.75,
                label=method,
            )
        axes.set_xlabel(properties[number].replace("_", " "), fontsize=9)
        axes.axhline(0, color="black", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if number % across == 0:
            axes.set_ylabel(target)
    grid.flat[0].legend(frameon=False, fontsize=7)
    return _svg(canvas)


def pictures(grids: Sequence[Grid]) -> bytes:
    """Grids of pictures one below the other, as PNG; those that the first detector sees the concept in are
    framed."""
    from PIL import Image

    rows, columns = sum(len(grid.rows) + 1 for grid in grids), max(len(grid.columns) for grid in grids)
    longest = max(len(line) for grid in grids for row in grid.rows for line in _lines(row.label))
    margin = 0.3 + 0.055 * longest
    canvas, _ = _canvas(margin + _CELL * columns, _CELL * rows, axes=False)
    canvas.set_layout_engine("none")
    left, at = margin / canvas.get_figwidth(), 0
    for grid in grids:
        canvas.text(0.01, 1 - (at + 0.3) / rows, grid.title, fontsize=9, weight="bold", parse_math=False)
        for column, name in enumerate(grid.columns):
            middle = left + (1 - left) * (column + 0.5) / columns
            canvas.text(
                middle,
                1 - (at + 0.95) / rows,
                name.replace(" ", "\n"),
                fontsize=6.5,
                ha="center",
                va="bottom",
                parse_math=False,
            )
        for number, row in enumerate(grid.rows, at + 1):
            canvas.text(
                left - 0.01,
                1 - (number + 0.5) / rows,
                "\n".join(_lines(row.label)),
                fontsize=7,
                ha="right",
                va="center",
                parse_math=False,
            )
            for column, picture in enumerate(row.pictures):
                place = (
                    left + (1 - left) * (column + 0.04) / columns,
                    1 - (number + 0.96) / rows,
                    (1 - left) * 0.92 / columns,
                    0.92 / rows,
                )
                axes = canvas.add_axes(place, xticks=[], yticks=[])
                if picture is not None:
                    with Image.open(io.BytesIO(picture.png)) as image:
                        axes.imshow(image, interpolation="nearest", aspect="auto")
                axes.spines[:].set(
                    color=AFTER if picture is not None and picture.hit else "#cccccc", linewidth=2.2
                )
        at += len(grid.rows) + 1
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


def _lines(label: str) -> list[str]:
    return label.split(" · ")


def _canvas(width: float, height: float, *, axes: bool = True) -> tuple[Canvas, Any]:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), layout="constrained", facecolor="white")
    if not axes:
        return canvas, None
    drawn = canvas.subplots()
    drawn.spines[["top", "right"]].set_visible(False)
    return canvas, drawn


def _svg(canvas: Canvas) -> bytes:
    """The same bytes for the same figure: no date, no random identifiers, text as paths."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "auditor", "svg.fonttype": "path"}):
        canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
