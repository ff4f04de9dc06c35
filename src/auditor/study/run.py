"""A study from end to end: its file in; table, figures and page out. What was measured before is not measured again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.auditing import base_source
from auditor.errors import AuditorError, UsageError
from auditor.files import room_on_disk
from auditor.signals import stoppable
from auditor.study.document import Study, load_study
from auditor.study.expand import Chosen, Expansion
from auditor.study.store import Store

if TYPE_CHECKING:
    from auditor.checkpoint import Checkpoint
    from auditor.study.work import StudyProgress


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
    bases = {base_source(each.study.base) for each in parts} | {base_source(study.base)}
    if len(bases) > 1:
        raise UsageError(f"{path} is of studies with different bases ({', '.join(sorted(bases))}).")
    return Asked(path, study, parts)


@lru_cache(maxsize=4)
def open_base(source: str, offline: bool) -> Checkpoint:
    """The studies' base, admitted once."""
    from auditor.checkpoint import open_checkpoint

    return open_checkpoint(source, offline=offline)


def expansion(study: Study, opened: Checkpoint) -> Expansion:
    """The study on its base and on this kind of device."""
    from auditor.checkpoint.load import best_device

    return Expansion(study, opened.digest, best_device().type)


def measure(asked: Asked, store: Store, progress: StudyProgress | None = None, *, offline: bool = False, threads: int | None = None) -> int:
    """Do everything that ``asked`` takes and the store does not hold. Returns the number of arms that broke."""
    import torch

    from auditor.checkpoint.load import load_model
    from auditor.study.work import StudyProgress, Worker

    if threads is not None:
        torch.set_num_threads(threads)
    failures = 0
    with room_on_disk(store.folder), stoppable():
        model, opened = None, open_base(base_source(asked.study.base), offline)
        for each in asked.whole:
            plan, began = expansion(each.study, opened), time.monotonic()
            model = model or load_model(opened, each.study.sampler.dtype)
            worker = Worker(plan, store, opened, model, progress or StudyProgress())
            worker.run(lambda plan=plan: choose(plan, store))  # type: ignore[misc]
            failures += worker.failures
            _keep_time(store, plan, time.monotonic() - began)
    return failures


def _keep_time(store: Store, plan: Expansion, seconds: float) -> None:
    del store, plan, seconds


def choose(plan: Expansion, store: Store) -> Chosen:
    """The strength of each eraser for each set, by the erased arms of the first replicate alone (``Study.match``)."""
    from auditor.study.findings import shares_of

    match, chosen = plan.study.match, Chosen()
    by_pair: dict[tuple[str, str], list[tuple[tuple[float, ...], int]]] = {}
    for erased in plan.candidates():
        assert match is not None and erased.strength is not None
        record = store.read(plan.record_key(plan.erased_arm(erased)))
        if record is None:
            continue
        shares = shares_of(plan.samples(erased.set), record)
        detected, retained = shares.get("erased"), shares.get("retained")
        if detected is None or retained is None:
            continue
        fits = detected <= match.detected
        rank = (0.0, abs(retained - match.retained), detected) if fits else (1.0, detected, -retained)
        by_pair.setdefault((erased.set, erased.eraser), []).append((rank, erased.strength))
    for pair, ranked in by_pair.items():
        chosen[pair] = min(ranked)[1]
    missing = {(e.set, e.eraser) for e in plan.candidates()} - chosen.keys()
    if missing:
        pairs = ", ".join(f"{eraser} on {name}" for name, eraser in sorted(missing))
        raise AuditorError(
            f"No strength of {pairs} could be measured, so none can be chosen; the failures are in {store.folder / 'failures'}."
        )
    return chosen
