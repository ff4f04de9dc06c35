"""The pictures of a page: which it has room for, small copies, and what stands beside what."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from auditor.report import Outcome, Picture, Report
from auditor.report.voice import strongest, when
from auditor.report.voice.over_updates import kind_of
from auditor.report.words import gate_cells, is_base

_THUMBNAIL = 96  # pixels a side
_LARGE = 240  # of those in the verdict's box
_MOST_THUMBNAILS = 1_500
_MOST_BYTES = 2_800_000  # of thumbnails, as text
_MOST_PICTURES = 4_000
_ROWS_BESIDE = 2  # in the verdict's box


@dataclass(frozen=True)
class Shown:
    """A picture with its thumbnail as a data URI, empty where the page has no room for it or the file is
    gone."""

    picture: Picture
    uri: str
    title: str = ""

    @property
    def is_base(self) -> bool:
        """Was it drawn by the base?"""
        return is_base(self.picture.arm)


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


def thumbnails(pictures: Sequence[Picture], folder: Path, size: int = _THUMBNAIL) -> dict[Place, str]:
    """Small copies of a run's images as data URIs, by where they stand, in the order given, while there is
    room."""
    found: dict[Place, str] = {}
    made: dict[str, str] = {}
    room = _MOST_BYTES
    for picture in pictures:
        if len(found) == _MOST_THUMBNAILS or room <= 0:
            break
        if picture.image not in made:
            made[picture.image] = _thumbnail(folder, picture.image, size)
        if made[picture.image]:
            found[place_of(picture)] = made[picture.image]
            room -= len(made[picture.image])
    return found


def _thumbnail(folder: Path, image: str, size: int) -> str:
    """One small copy; empty where the file is gone or is no picture."""
    if not re.fullmatch(r"[0-9a-f]{64}", image):
        return ""
    try:
        with Image.open(folder / "images" / f"{image}.png", formats=("PNG",)) as opened:
            small = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError):
        return ""
    if max(small.size) > size:
        small = small.resize((size, size), Image.Resampling.BOX, reducing_gap=2.0)
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
    domains = _domains(report)
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


def beside(report: Report, folder: Path, sensitive: Collection[str] = ()) -> dict[str, Any]:
    """What the verdict's box shows: base, erased, and the model state with the highest rate, same prompt and
    noise. After a PASS the first images, which nobody chose; else those in which that model state shows the
    concept first."""
    worst = strongest(report)
    nothing: dict[str, Any] = {"rows": [], "how": "", "sensitive": False}
    if worst is None:
        return nothing
    third = worst.arm if worst.arm != "erased" else _highest_after(report, worst.surface)
    found: dict[tuple[int, str], dict[str, Picture]] = {}
    for picture in report.pictures:
        if picture.concept == worst.surface and picture.arm in ("base", "erased", third):
            found.setdefault((picture.index, picture.prompt), {})[picture.arm] = picture
    arms = [arm for arm in ("base", "erased", third) if any(arm in own for own in found.values())]
    if len(arms) < 2 or worst.arm not in arms:
        return nothing
    choose = report.verdict.outcome is not Outcome.PASS
    shown = sorted(
        ((place, own) for place, own in found.items() if worst.arm in own),
        key=lambda row: (len(arms) - len(row[1]) if not choose else 0, _tells(row[1], worst.arm) * choose),
    )[:_ROWS_BESIDE]
    first = {
        prompt: own["base"]
        for (_, prompt), own in sorted(found.items(), reverse=True, key=lambda row: row[0][0])
        if "base" in own
    }
    for (_, prompt), own in shown:  # the base draws one round with this noise, and more with noise of its own
        if "base" not in own and prompt in first:
            own["base"] = first[prompt]
    small = thumbnails([own[arm] for _, own in shown for arm in arms if arm in own], folder, _LARGE)
    titles = {"base": "base", "erased": "erased", third: when(third)}
    rows = [
        {
            "prompt": prompt,
            "index": index,
            "items": [
                Shown(
                    own[arm],
                    small.get(place_of(own[arm]), ""),
                    titles[arm],
                )
                for arm in arms
                if arm in own
            ],
            "other": "base" in own and own["base"].index != index,
            "missing": [titles[arm] for arm in arms if arm not in own],
        }
        for (index, prompt), own in shown
    ]
    how = "The first images of their prompts, which nobody chose."
    if choose and any(own[worst.arm].hit for _, own in shown if worst.arm in own):
        how = "Chosen because the detector sees the concept in them."
    domains = _domains(report)
    return {"rows": rows, "how": how, "sensitive": domains.get(worst.concept, "") in sensitive}


def _highest_after(report: Report, surface: str) -> str:
    """The model state but the erased one in which a concept is seen most often; the erased one where there
    is none."""
    cells = [cell for cell in gate_cells(report) if cell.surface == surface and cell.arm != "erased"]
    return max(cells, key=lambda cell: cell.rate or 0).arm if cells else "erased"


def _tells(own: Mapping[str, Picture], arm: str) -> int:
    """How much a row shows of what came back; less is more."""
    base, before, after = (own.get(each) for each in ("base", "erased", arm))
    if after is None or not after.hit:
        return 4
    seen_before = arm != "erased" and before is not None and before.hit
    return 2 * int(base is None) + int(base is not None and not base.hit) + int(seen_before)


def damaged(
    report: Report, small: Mapping[Place, str], sensitive: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Retained pairs: the base's image beside a model state's."""
    domains = _domains(report)
    return [
        {
            "prompt": before.prompt,
            "index": before.index,
            "items": [Shown(each, small.get(place_of(each), ""), when(each.arm)) for each in (before, after)],
            "sensitive": domains.get(before.concept, "") in sensitive,
        }
        for before, after in zip(report.damaged[::2], report.damaged[1::2], strict=False)
    ]


def after_updates(
    report: Report, small: Mapping[Place, str], sensitive: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Images in which the concept was seen after updates, an update at a time."""
    domains, found = _domains(report), dict[str, list[Picture]]()
    for each in report.after_updates:
        found.setdefault(each.arm, []).append(each)
    updates = {} if report.population is None else {each.name: each for each in report.population.updates}
    return [
        {
            "title": ", ".join([f"update {updates[name].number}", *kind_of(updates[name])])
            if name in updates
            else name,
            "items": [Shown(each, small.get(place_of(each), ""), each.prompt) for each in own],
            "sensitive": any(domains.get(each.concept, "") in sensitive for each in own),
        }
        for name, own in found.items()
    ]


def _domains(report: Report) -> dict[str, str]:
    both = (*report.policy["erase"], *report.policy["retain"])
    return {each["name"]: each["domain"].casefold() for each in both}
