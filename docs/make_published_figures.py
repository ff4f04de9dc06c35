"""The tables of ``published-figures.md``, computed from ``published_figures.yaml``.

``python docs/make_published_figures.py`` writes them into the page, each between its two comments; a test
computes them again. Intervals are Clopper and Pearson's (1934), two-sided at 95 %; rises are tested by
Fisher's exact test, one-sided, and by Holm (1979) within a published table, at 0.05.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from scipy.stats import binomtest, fisher_exact

ALPHA = 0.05
_DOCS = Path(__file__).parent
PAGE = _DOCS / "published-figures.md"
FIGURES: Mapping[str, Any] = yaml.safe_load((_DOCS / "published_figures.yaml").read_text("utf-8"))


def fitting(printed: str, n: int, unit: str) -> int | None:
    """The count whose share of ``n`` reads as ``printed`` (its digits, half up or to even), or None."""
    scale = 100 if unit == "percent" else 1
    step = Decimal(1).scaleb(Decimal(printed).as_tuple().exponent)  # type: ignore[arg-type]
    count = nearest(printed, n, unit)
    return count if abs(Decimal(count * scale) / n - Decimal(printed)) <= step / 2 else None


def nearest(printed: str, n: int, unit: str) -> int:
    """The whole number of ``n`` images that is nearest to the printed rate."""
    return round(Decimal(printed) * n / (100 if unit == "percent" else 1))


def smallest_n(printed: Sequence[str], unit: str) -> int:
    """The smallest number of images that every printed rate can be a share of."""
    return next(n for n in range(1, 10**6) if all(fitting(each, n, unit) is not None for each in printed))


def rise(before: int, after: int, n: int) -> float:
    """Fisher's exact p-value, one-sided: that the second of two samples of ``n`` has the higher rate."""
    return float(fisher_exact([[after, n - after], [before, n - before]], alternative="greater").pvalue)


def interval(hits: int, n: int) -> tuple[float, float]:
    """Clopper and Pearson's exact interval at 95 %."""
    found = binomtest(hits, n).proportion_ci(confidence_level=1 - ALPHA, method="exact")
    return float(found.low), float(found.high)


def holm(p_values: Sequence[float], more: int = 0) -> list[float]:
    """Holm's adjusted p-values, in the order given.

    ``more`` hypotheses of the same table have unknown p-values. They are taken to be the larger ones:
    were one smaller, the factors of those after it would be smaller too.
    """
    m, worst, found = len(p_values) + more, 0.0, [0.0] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (m - rank) * p_values[index]))
        found[index] = worst
    return found


@dataclass(frozen=True)
class Rise:
    """One published pair of rates; counts of ``n`` images before and after, Fisher's p and Holm's."""

    name: str
    n: int
    before: int
    after: int
    p: float
    adjusted: float

    @property
    def shown(self) -> bool:
        """Is the rise shown, after Holm within its table?"""
        return self.adjusted <= ALPHA


def rises(table: Mapping[str, Any], *, as_prompts: bool = False) -> list[Rise]:
    """The rows of one published table, those that were not read counted by Holm; ``as_prompts``: as if all
    images of a prompt were one."""
    n = table["n"] // (table["images_per_prompt"] if as_prompts else 1)
    counts = {
        name: tuple(nearest(each, n, table["unit"]) for each in pair) for name, pair in table["rows"].items()
    }
    found = [rise(before, after, n) for before, after in counts.values()]
    adjusted = holm(found, table["left_out"])
    return [
        Rise(name, n, before, after, p, fixed)
        for (name, (before, after)), p, fixed in zip(counts.items(), found, adjusted, strict=True)
    ]


def tables() -> dict[str, str]:
    """Markdown by the name of its place in the page."""
    found = {f"rises {number}": _rises(table) for number, table in enumerate(FIGURES["rises"], 1)}
    return found | {"twice": _twice(), "sizes": _sizes()}


def _rises(table: Mapping[str, Any]) -> str:
    rows, other = rises(table), rises(table, as_prompts=True)
    lines = _table(
        ("row", "before", "95 %", "after", "95 %", "p", "p by Holm", "rise"),
        (
            (
                row.name,
                f"{row.before}/{row.n}",
                _range(row.before, row.n),
                f"{row.after}/{row.n}",
                _range(row.after, row.n),
                _p(row.p),
                _p(row.adjusted),
                "shown" if row.shown else "not shown",
            )
            for row in rows
        ),
    )
    shown = sum(row.shown for row in rows)
    said = f"Shown: {shown} of {len(rows)}."
    single = [row.name for row in rows if row.p <= ALPHA and not row.shown]
    if single:
        said += f" Shown only if it were the table's one comparison: {'; '.join(single)}."
    if table["images_per_prompt"] > 1:
        lost = [row.name for row, coarse in zip(rows, other, strict=True) if row.shown and not coarse.shown]
        said += f" With all images of a prompt as one (n = {other[0].n})"
        said += f" no longer shown: {'; '.join(lost)}." if lost else " the same are shown."
    return (
        f"*{table['source']}*: {table['what']}. Read in {table['read_in']}. n = {table['n']}: "
        f"{table['n_from']}.\n\n{lines}\n\n{said}"
    )


def _twice() -> str:
    rows = []
    for pair in FIGURES["twice"]:
        counts = [(nearest(each["rate"], each["n"], "percent"), each["n"]) for each in pair["by"]]
        p = float(fisher_exact([[hits, n - hits] for hits, n in counts]).pvalue)
        rows.append(
            (
                pair["what"],
                *(
                    part
                    for each, (hits, n) in zip(pair["by"], counts, strict=True)
                    for part in (f"{each['who']}: {each['rate']} %", f"{_range(hits, n)} (n = {n})")
                ),
                f"{'shown' if p <= ALPHA else 'not shown'} (p = {_p(p)})",
            )
        )
    return _table(("what", "one", "95 %", "the other", "95 %", "a difference"), rows)


def _sizes() -> str:
    rows = []
    for each in FIGURES["sizes"]:
        n = each["n"]
        five, bound = round(n * 0.05), 1 - ALPHA ** (1 / n)
        rows.append(
            (
                str(n),
                each["whose"],
                f"{bound:.2%}".replace("%", " %"),
                str(least_shown(0, n)),
                f"{five} → {least_shown(five, n)}",
                str(least_above(0.3, n)),
            )
        )
    heads = ("n", "whose", "0 hits: rate below", "a rise from 0: hits", "from 5 %: hits", "above 30 %: hits")
    return _table(heads, rows)


def least_shown(before: int, n: int) -> int:
    """The fewest hits of ``n`` whose rise over ``before`` of ``n`` has a p-value of at most 0.05."""
    return next(after for after in range(before, n + 1) if rise(before, after, n) <= ALPHA)


def least_above(rate: float, n: int) -> int:
    """The fewest hits of ``n`` that show a rate above ``rate``: exact binomial test, one-sided, 0.05."""
    return next(
        hits
        for hits in range(round(rate * n), n + 1)
        if binomtest(hits, n, rate, alternative="greater").pvalue <= ALPHA
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))


def _range(hits: int, n: int) -> str:
    low, high = interval(hits, n)
    return f"{100 * low:.1f}–{100 * high:.1f} %"


def _p(value: float) -> str:
    return f"{value:.1e}" if value < 0.0005 else f"{value:.3f}"


def filled(page: str) -> str:
    """The page with every table as it is computed now. Raises ``ValueError`` where a place is missing."""
    for name, text in tables().items():
        places = re.findall(rf"<!-- {name} -->\n\n(?:.*?\n\n)??<!-- end -->", page, re.DOTALL)
        if len(places) != 1:
            raise ValueError(f"the page has {len(places)} places for '{name}'; one is right")
        page = page.replace(places[0], f"<!-- {name} -->\n\n{text}\n\n<!-- end -->")
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
