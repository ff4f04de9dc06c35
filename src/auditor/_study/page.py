"""The page of a study: one self-contained HTML file. Questions with figures and what the paper says first,
then pictures and numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from PIL import Image

from auditor._files.images import PictureCache, to_png
from auditor._study.claims import Held
from auditor._study.document import Figure, Study
from auditor._study.expand import StudySample
from auditor._study.findings import ArmFinding, Findings
from auditor._study.predictors import Told
from auditor._study.store import Store
from auditor.builtins.reporters.html import environment

_SIDE = 96  # pixels of a thumbnail
_SELECTED = 8
_MOST_CONCEPTS = 10


@dataclass(frozen=True)
class Answered:
    """A figure as it is shown."""

    figure: Figure
    svg: Markup
    claims: Sequence[Held]


@dataclass(frozen=True)
class Picture:
    """An image as it is shown: a thumbnail, what the first detector said, and words for who cannot see it."""

    png: bytes
    hit: bool
    label: str
    alt: str

    @property
    def uri(self) -> Markup:
        """The source of an image."""
        return _uri("image/png", self.png)


@dataclass(frozen=True)
class Row:
    """Pictures side by side; None where one is missing."""

    label: str
    pictures: Sequence[Picture | None]


@dataclass(frozen=True)
class Grid:
    """Rows under the same columns."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]


def first_images(parts: Sequence[tuple[str, Findings]], store: Store) -> list[Grid]:
    """The first image at seed 0 of each erased concept, from base to probes, a grid a set and eraser:
    nobody chose them."""
    pictures = PictureCache(store.pictures)
    wanted = [findings for _, findings in parts if findings.study.grids]
    grids = [
        _grid(findings, pictures, name, eraser)
        for findings in wanted
        for name in findings.study.sets
        for eraser in findings.study.erasers
    ]
    return [grid for grid in grids if grid.rows]


def most_resurged(parts: Sequence[tuple[str, Findings]], store: Store) -> Grid:
    """The images that came back most, by how much the first detector's score rose: selected, to show what
    resurgence looks like."""
    pictures = PictureCache(store.pictures)
    found = [each for _, findings in parts if findings.study.grids for each in _selected(findings, pictures)]
    rows = [row for _, row in sorted(found, key=lambda each: -each[0])[:_SELECTED]]
    return Grid("selected: what came back most", ("base", "erased", "after the probe"), rows)


def render(
    study: Study,
    parts: Sequence[tuple[str, Findings]],
    answered: Sequence[Answered],
    grids: Sequence[Grid] = (),
    selected: Grid | None = None,
    predicted: dict[str, Any] | None = None,
) -> bytes:
    """The page; ``parts`` are the studies that it shows the runs of, ``predicted`` what decides
    resurgence."""
    failures = [
        (_title(findings, finding), finding.failure) for _, findings in parts for finding in findings.failures
    ]
    return (
        environment()
        .get_template("study.html.j2")
        .render(
            study=study,
            answered=answered,
            grids=grids,
            selected=selected,
            strengths=[row for _, findings in parts for row in _strengths(findings)]
            if predicted is None
            else [],
            table=[row for _, findings in parts for row in _table(findings)],
            failures=failures,
            facts=_facts(parts),
            predicted=predicted,
        )
        .encode()
    )


def svg_uri(svg: bytes) -> Markup:
    """An SVG as the source of an image: scripts in it would not run, and its styles stay its own."""
    return _uri("image/svg+xml", svg)


def _uri(kind: str, content: bytes) -> Markup:
    # base64 needs no escapes, and is not cut
    return Markup(f"data:{kind};base64,{base64.b64encode(content).decode()}")  # noqa: S704


def told_rows(told: Sequence[Told]) -> list[dict[str, Any]]:
    """For the table: the mean alone first, then by error."""
    first, rest = told[0], sorted(told[1:], key=lambda each: each.error)
    return [
        vars(each) | {"ratio": each.error / first.error if each.checkpoints == first.checkpoints else None}
        for each in (first, *rest)
    ]


def _facts(parts: Sequence[tuple[str, Findings]]) -> dict[str, Any]:
    every = [finding for _, findings in parts for finding in findings.every if finding.arm.erased]
    unique = {
        findings.plan.record_key(f.arm): f for _, findings in parts for f in findings.every if f.arm.erased
    }
    images = sum(len(finding.record.outcomes) for finding in unique.values() if finding.record)
    return {
        "checkpoints": len({finding.arm.erased.key for finding in every if finding.arm.erased}),
        "arms": len(unique),
        "images": images,
        "missing": sum(
            outcome.flaw is not None for f in unique.values() if f.record for outcome in f.record.outcomes
        ),
        "seconds": sum(findings.seconds for _, findings in parts),
    }


def _title(findings: Findings, finding: ArmFinding) -> str:
    erased = finding.arm.erased
    return f"{finding.arm.set} · base" if erased is None else f"{erased.title} · {_arm(findings, finding)}"


def _arm(findings: Findings, finding: ArmFinding) -> str:
    """The arm within its checkpoint; its dose where there are several."""
    arm = finding.arm
    if arm.erased is None or arm.probe is None:
        return "base" if arm.erased is None else "erased"
    doses = next((use.doses for title, use in findings.study.uses(arm.set) if title == arm.probe), ())
    return f"{arm.probe} · {arm.dose}" if len(doses) > 1 else arm.probe


def _table(findings: Findings) -> list[dict[str, Any]]:
    """A row a condition: counts of its replicates, one beside the other."""
    rows: dict[tuple[object, ...], list[ArmFinding]] = {}
    for finding in findings.arms:
        assert finding.arm.erased is not None
        rows.setdefault(
            (finding.arm.set, finding.arm.erased.eraser, finding.arm.probe, finding.arm.dose), []
        ).append(finding)
    shown = []
    for (name, eraser, _, _), group in rows.items():
        shown.append(
            {
                "set": name,
                "eraser": eraser,
                "probe": _arm(findings, group[0]),
                "detected": [_counted(finding, "erased") for finding in group],
                "retained": [_counted(finding, "retained") for finding in group],
                "metrics": {
                    use.use: [_metric(finding, use.use) for finding in group]
                    for use in findings.study.metrics
                },
                "fit": [_fit(finding) for finding in group],
            }
        )
    return shown


def _strengths(findings: Findings) -> list[dict[str, Any]]:
    """What each strength showed before any probe, and which was taken."""
    rows = []
    for finding in findings.candidates:
        erased = finding.arm.erased
        match = findings.study.match
        assert erased is not None and erased.strength is not None and match is not None
        detected, retained = finding.value("detected"), finding.value("retained")
        rows.append(
            {
                "set": erased.set,
                "eraser": erased.eraser,
                "options": findings.study.erasers[erased.eraser].strengths[erased.strength],
                "detected": f"{_counted(finding, 'erased')} (at most {match.detected:.0%})",
                "retained": f"{_counted(finding, 'retained')} (at least {match.retained:.0%})",
                "misses": "–"
                if detected is None or retained is None
                else f"{match.shortfall(detected, retained):.2f}",
                "taken": findings.chosen.get((erased.set, erased.eraser)) == erased.strength,
            }
        )
    return rows


def _counted(finding: ArmFinding, role: str) -> str:
    count = finding.counts.get(role)
    if count is None:
        return "–"
    return f"{count.hits}/{count.n}" + (f" ({count.missing} missing)" if count.missing else "")


def _metric(finding: ArmFinding, name: str) -> str:
    value = finding.metrics.get(name)
    return "–" if value is None else f"{value.value:.3g} [{value.lower:.3g}, {value.upper:.3g}]"


def _fit(finding: ArmFinding) -> str:
    record = finding.record
    if record is None or record.fit is None or not record.fit_before:
        return "–"
    return f"{1 - record.fit / record.fit_before:+.0%}"


def _grid(findings: Findings, pictures: PictureCache, name: str, eraser: str) -> Grid:
    checkpoint = next(
        (
            e
            for e in findings.plan.checkpoints(findings.chosen)
            if (e.set, e.eraser, e.replicate) == (name, eraser, 1)
        ),
        None,
    )
    samples = [
        (row, sample) for row, sample in enumerate(findings.plan.samples(name)) if sample.role == "grid"
    ][:_MOST_CONCEPTS]
    arms = [findings.bases[name]]
    if checkpoint is not None:
        arms += [
            f
            for f in findings.arms
            if f.arm.erased is not None and f.arm.erased.key == checkpoint.key and f.arm.set == name
        ]
    rows = []
    for finding in arms:
        if finding.record is not None:
            items = [_item(findings, pictures, finding, row, sample) for row, sample in samples]
            rows.append(Row(_arm(findings, finding), items))
    return Grid(f"{name} · {eraser}", [sample.concept for _, sample in samples], rows if samples else [])


def _selected(findings: Findings, pictures: PictureCache) -> list[tuple[float, Row]]:
    """Images that an erased model did not show its concept in and a probed one did, by how much the
    detector's score rose."""
    found = []
    for finding in findings.arms:
        erased = finding.arm.erased
        before = None if erased is None or finding.arm.probe is None else findings.of(erased, None)
        if before is None or before.record is None or finding.record is None or erased is None:
            continue
        samples = findings.plan.samples(finding.arm.set)
        for row, (sample, one, two) in enumerate(
            zip(samples, before.record.outcomes, finding.record.outcomes, strict=True)
        ):
            came_back = (
                sample.role == "erased" and one.hits and two.hits and not _hit(one.hits) and _hit(two.hits)
            )
            if came_back and one.score is not None and two.score is not None:
                found.append((two.score - one.score, row, sample, finding, before))
    best = sorted(found, key=lambda each: (-each[0], each[2].concept, each[2].prompt, each[2].index))[
        :_SELECTED
    ]
    shown = []
    for gain, row, sample, finding, before in best:
        items = [
            _item(findings, pictures, which, row, sample)
            for which in (findings.bases[finding.arm.set], before, finding)
        ]
        shown.append((gain, Row(f"{sample.prompt} · {_title(findings, finding)}", items)))
    return shown


def _hit(hits: dict[str, bool]) -> bool:
    return next(iter(hits.values()))


def _item(
    findings: Findings, pictures: PictureCache, finding: ArmFinding, row: int, sample: StudySample
) -> Picture | None:
    assert finding.record is not None
    image = pictures.load(findings.plan.picture_key(finding.arm, sample))
    outcome = finding.record.outcomes[row]
    if image is None:
        return None
    content = to_png(image)
    if max(image.shape[1:]) > _SIDE:
        buffer = io.BytesIO()
        with Image.open(io.BytesIO(content)) as picture:
            picture.thumbnail((_SIDE, _SIDE))
            picture.save(buffer, format="PNG")
        content = buffer.getvalue()
    return Picture(
        content,
        bool(outcome.hits) and _hit(outcome.hits),
        outcome.label,
        f"{sample.prompt}: {_title(findings, finding)}",
    )
