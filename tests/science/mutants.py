"""The auditor with one safeguard taken out, each in its own way: the simulation has to notice every one
(verdict.md)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from auditor._audit.cells import Cell, PlannedSample, Role, Seeds
from auditor._audit.evidence import rehearsal, stopping
from auditor._audit.evidence.sequential_tests import MISSING, Evidence, Outcomes, Reading
from tests.science.simulate import Change, layout


class ImageByImage(Evidence):
    """Evidence is read after every image, all of the first prompt before any of the second."""

    def read(self, cell: Cell) -> Reading:
        if cell.role is not Role.GATE:
            return super().read(cell)
        table = self._whole(cell)[:, self.plan.columns[cell.concept]]
        table = table.reshape(-1, cell.size).T.ravel()  # prompt by prompt
        return Reading(np.arange(1, len(table) + 1), np.cumsum(table == 1), np.cumsum(table != 0), whole=True)


class PeekedClopperPearson(Evidence):
    """A fixed-size binomial test, read again after every round."""

    def p_below(self, reading: Reading, limit: float) -> float:
        return float(binom.cdf(reading.high, reading.n, limit).min(initial=1.0))

    def p_above(self, reading: Reading, limit: float) -> float:
        return float(binom.sf(reading.low - 1, reading.n, limit).min(initial=1.0))


class NoHolm(Evidence):
    """FAIL as soon as one of m cells has q <= alpha."""

    @property
    def alpha_fail(self) -> float:
        return self.limits.alpha

    def failed_cells(self) -> list[Cell]:
        return [cell for cell in self.plan.gate_cells if self.q(cell) <= self.limits.alpha]


class DroppedCells(Evidence):
    """Cells without images are left out of "every cell held"."""

    def is_held(self, cell: Cell) -> bool:
        return not self.rounds(cell) or super().is_held(cell)


class DroppedErrors(Evidence):
    """Missing images are left out of n."""

    def _reading(self, cell: Cell, column: Outcomes, counted: NDArray[np.bool_] | None = None) -> Reading:
        drawn = column != MISSING
        return super()._reading(
            cell, np.where(drawn, column, 0), drawn if counted is None else drawn & counted
        )


class NoNegativeControl(Evidence):
    """FAIL without asking whether the detector is rarely wrong on that model state."""

    def q(self, cell: Cell) -> float:
        return self.p_failed(cell)


@contextmanager
def instead(mutant: type[Evidence]) -> Iterator[None]:
    """Audits are played with ``mutant`` for evidence."""
    with patch.object(rehearsal, "Evidence", mutant):
        yield


@contextmanager
def image_by_image() -> Iterator[None]:
    """Cells are read, and stopped, after every image."""

    def wants(evidence: Evidence, cell: Cell, left: int) -> int:
        return 0 if evidence.is_held(cell) or evidence.p_failed(cell) <= evidence.alpha_fail else left

    with instead(ImageByImage), patch.object(stopping, "_gate_wants", wants):
        yield


@contextmanager
def arm_in_seed() -> Iterator[None]:
    """The arm is put back into the hash that image seeds come from."""

    def samples(cell: Cell, seeds: Seeds) -> list[PlannedSample]:
        return _samples(cell, Seeds(f"{cell.arm} {seeds.audit}", f"{cell.arm} {seeds.shared}"))

    layout.cache_clear()
    with patch.object(Cell, "samples", samples):
        yield
    layout.cache_clear()


_samples = Cell.samples

MUTANTS: dict[str, tuple[Change, str]] = {
    "image-by-image reading in prompt order": (
        image_by_image,
        "one cell at tau_P, in its last prompt",
    ),
    "peeked Clopper-Pearson": (partial(instead, PeekedClopperPearson), "one cell at tau_P, m = 2"),
    "no Holm": (partial(instead, NoHolm), "all cells at tau_F, m = 10"),
    "no Holm (fixed)": (partial(instead, NoHolm), "fixed: all cells at tau_F"),
    "dropped cells": (partial(instead, DroppedCells), "the arm where all is back was not asked"),
    "dropped errors (hits)": (partial(instead, DroppedErrors), "one cell at tau_P, its hits are missing"),
    "dropped errors (non-hits)": (
        partial(instead, DroppedErrors),
        "all cells at tau_F, their non-hits are missing",
    ),
    "FAIL without the negative control": (
        partial(instead, NoNegativeControl),
        "false positives at their limit on all arms, all cells fire",
    ),
}
"""Name -> (the change, the setting at which it has to breach the level)."""
