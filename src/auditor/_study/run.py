"""A study from end to end: its file in; table, figures and page out. What was measured before is not
measured again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auditor._files.whole_files import on_disk, write_whole
from auditor._process.signals import stoppable
from auditor._study.document import Study
from auditor._study.expand import Chosen, Expansion
from auditor._study.load import load_study
from auditor._study.store import Store, StudyProgress
from auditor.errors import AuditorError, UsageError

if TYPE_CHECKING:
    from auditor._checkpoint import Checkpoint
    from auditor._study.findings import Findings
    from auditor._study.page import Answered, Grid


@dataclass(frozen=True)
class Asked:
    """A study as it was asked for: its file, and those it is ``of``."""

    path: Path
    study: Study
    parts: tuple[Asked, ...] = ()

    @property
    def whole(self) -> tuple[Asked, ...]:
        """It and its parts, those first; one that is of others alone has no runs of its own."""
        return (*self.parts, *([self] if self.study.sets else []))


def ask(path: Path) -> Asked:
    """Read a study and the ones that it is of."""
    study = load_study(path)
    parts = tuple(ask(path.parent / name) for name in study.of)
    bases = {each.study.base.address for each in parts} | {study.base.address}
    if len(bases) > 1:
        raise UsageError(f"{path} is of studies with different bases ({', '.join(sorted(bases))}).")
    return Asked(path, study, parts)


@lru_cache(maxsize=4)
def open_base(source: str, offline: bool) -> Checkpoint:
    """The studies' base, admitted once."""
    from auditor._checkpoint import open_checkpoint

    return open_checkpoint(source, offline=offline)


def expansion(study: Study, opened: Checkpoint) -> Expansion:
    """The study on its base and on this kind of device."""
    from auditor._process.device import best_device

    return Expansion(study, opened.digest, best_device().type)


def measure(
    asked: Asked,
    store: Store,
    progress: StudyProgress | None = None,
    *,
    offline: bool = False,
    threads: int | None = None,
) -> int:
    """Do everything that ``asked`` takes and the store does not hold. Returns the number of arms that
    broke."""
    import torch

    from auditor._checkpoint.load import load_model
    from auditor._study.work import Worker

    if threads is not None:
        torch.set_num_threads(threads)
    failures = 0
    with on_disk(store.folder), stoppable():
        model, opened = None, open_base(asked.study.base.address, offline)
        for each in asked.whole:
            plan = expansion(each.study, opened)
            model = model or load_model(opened, each.study.sampler.dtype)
            worker = Worker(plan, store, opened, model, progress or StudyProgress())
            worker.run(lambda plan=plan: choose(plan, store))  # type: ignore[misc]
            failures += worker.failures
    return failures


def read(asked: Asked, store: Store, *, offline: bool = False) -> list[tuple[str, Findings]]:
    """What the store holds of a study and its parts, by the names of their files."""
    from auditor._study.findings import Findings

    opened, found = open_base(asked.study.base.address, offline), []
    for each in asked.whole:
        plan = expansion(each.study, opened)
        found.append((each.path.stem, Findings(plan, store, choose(plan, store))))
    return found


def write(asked: Asked, store: Store, out: Path, *, offline: bool = False) -> list[tuple[str, Findings]]:
    """Write table, figures and page of what the store holds to ``out``, and return it. Nothing is
    measured."""
    from auditor._study import figures, page
    from auditor._study.claims import hold
    from auditor._study.findings import COLUMNS
    from auditor.builtins.reporters.tables import csv_bytes

    parts, answered = read(asked, store, offline=offline), []
    with on_disk(out):
        if asked.study.predict is None:
            rows = [row for name, findings in parts for row in findings.rows(name)]
            write_whole(
                out / "table.csv",
                csv_bytes(COLUMNS, [[row.get(column) for column in COLUMNS] for row in rows]),
            )
            _write_parquet(out / "table.parquet", COLUMNS, rows)
        for figure in asked.study.figures:
            svg = figures.bars(parts[-1][1], figure)
            write_whole(out / f"{figure.name}.svg", svg)
            answered.append(page.Answered(figure, page.svg_uri(svg), hold(parts[-1][1], figure)))
        write_whole(
            out / "claims.json", (json.dumps(_claims(answered), indent=2, ensure_ascii=False) + "\n").encode()
        )
        predicted, grids, selected = None, list[page.Grid](), None
        if asked.study.predict is not None:
            predicted = _predict(asked.study.predict, parts, out)
        else:
            grids, selected = page.first_images(parts, store), page.most_resurged(parts, store)
            _write_grids(out, grids, selected)
        write_whole(out / "study.html", page.render(asked.study, parts, answered, grids, selected, predicted))
    return parts


def _write_grids(out: Path, grids: Sequence[Grid], selected: Grid) -> None:
    """The pictures of the page as files of their own; none is left of what is no longer shown."""
    from auditor._study import figures

    for name, shown in (
        ("first-images.png", grids),
        ("most-resurged.png", [selected] if selected.rows else []),
    ):
        if shown:
            write_whole(out / name, figures.pictures(shown))
        else:
            (out / name).unlink(missing_ok=True)


def _claims(answered: Sequence[Answered]) -> list[dict[str, Any]]:
    return [
        {
            "figure": each.figure.name,
            "source": each.figure.source,
            "says": held.claim.says,
            "test": held.claim.test,
        }
        | {"ours": held.claim.ours, "after_data": held.claim.after_data}
        | {"answer": held.answer, "measured": held.measured}
        for each in answered
        for held in each.claims
    ]


def _predict(probe: str, parts: Sequence[tuple[str, Findings]], out: Path) -> dict[str, Any]:
    """The data, the figure and the table of what decides; a checkpoint that several studies measured
    counts once."""
    from auditor._study import figures, page
    from auditor._study.predictors import COLUMNS, PROPERTIES, checkpoint_rows, pairs, similarities, told
    from auditor.builtins.reporters.tables import csv_bytes

    wanted = {pair for _, findings in parts for pair in pairs(findings)}
    cosines = similarities(open_base(parts[0][1].study.base.address, True), wanted)
    rows = list(
        {
            row["arm"]: row for _, findings in parts for row in checkpoint_rows(findings, probe, cosines)
        }.values()
    )
    if len({(row["set"], row["eraser"]) for row in rows}) < 3:
        raise UsageError(
            "What decides resurgence needs three settings or more that were erased, and measured before and "
            f"after {probe}."
        )
    write_whole(
        out / "checkpoints.csv", csv_bytes(COLUMNS, [[row[column] for column in COLUMNS] for row in rows])
    )
    _write_parquet(out / "checkpoints.parquet", COLUMNS, rows)
    shown = [*PROPERTIES, "lambda1"] if any(row["lambda1"] is not None for row in rows) else list(PROPERTIES)
    svg = figures.points(rows, shown)
    write_whole(out / "predictors.svg", svg)
    found = told(rows)
    write_whole(
        out / "predictors.json", (json.dumps([vars(each) for each in found], indent=2) + "\n").encode()
    )
    settings = len({(row["set"], row["eraser"]) for row in rows})
    return {
        "svg": page.svg_uri(svg),
        "rows": rows,
        "told": page.told_rows(found),
        "probe": probe,
        "settings": settings,
    }


def _write_parquet(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """The same table as Parquet, where pyarrow is installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return
    import io

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(
        pyarrow.table({column: [row.get(column) for row in rows] for column in columns}), buffer
    )
    write_whole(path, buffer.getvalue())


def choose(plan: Expansion, store: Store, *, partial: bool = False) -> Chosen:
    """The strength of each eraser for each set, by the erased arms of the first replicate alone
    (``Study.match``).

    Raises :class:`AuditorError` where one has none, unless that is to be expected (``partial``).
    """
    from auditor._study.findings import ArmFinding, counts_of

    match, chosen = plan.study.match, Chosen()
    by_pair: dict[tuple[str, str], list[tuple[tuple[float, ...], int]]] = {}
    for erased in plan.candidates():
        assert match is not None and erased.strength is not None
        arm = plan.erased_arm(erased)
        record = store.read(plan.record_key(arm))
        if record is None:
            continue
        finding = ArmFinding(arm, record, None, counts_of(plan.samples(erased.set), record))
        detected, retained = finding.value("detected"), finding.value("retained")
        if detected is None or retained is None:
            continue
        rank = (match.shortfall(detected, retained), abs(retained - match.retained), detected)
        by_pair.setdefault((erased.set, erased.eraser), []).append((rank, erased.strength))
    for pair, ranked in by_pair.items():
        chosen[pair] = min(ranked)[1]
    missing = {(e.set, e.eraser) for e in plan.candidates()} - chosen.keys()
    if missing and not partial:
        pairs = ", ".join(f"{eraser} on {name}" for name, eraser in sorted(missing))
        raise AuditorError(
            f"No strength of {pairs} could be measured, so none can be chosen; the failures are in "
            f"{store.folder / 'failures'}."
        )
    return chosen
