"""What decides resurgence: what is known of an erased checkpoint before any probe, beside what came back
after one.

Each property alone, and all together, in a linear model that is fitted without one setting (eraser and
concept set, all its replicates) and asked about that one. Its error beside that of the mean alone says
whether the property tells anything about settings it has not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import spearmanr

from auditor._study.expand import Erased
from auditor._study.findings import Findings
from auditor.plugin import _door as door
from auditor.plugin._loader import make_plugin
from auditor.plugin.contracts import Eraser

if TYPE_CHECKING:
    from auditor._checkpoint import Checkpoint

COLUMNS = (
    "set",
    "domain",
    "eraser",
    "method",
    "replicate",
    "arm",
    "concepts",
    "lambda1",
    "mapping_similarity",
    "attn2_distance",
    "unet_distance",
    "probability",
    "margin",
    "detected",
    "retained",
    "probe",
    "detected_after",
    "resurgence",
    "retained_after",
)
PROPERTIES = {
    "attn2_distance": "relative distance of cross-attention keys and values from the base's",
    "unet_distance": "relative distance of the whole UNet from the base's",
    "concepts": "number of erased concepts",
    "mapping_similarity": "cosine of text embeddings of concept and what it is mapped to",
    "margin": "detector's probability margin right after erasure, 1 - 2p",
    "detected": "detection rate right after erasure",
    "retained": "retained accuracy right after erasure",
}
"""Known before any probe, of every eraser. lambda1 is MACE's alone."""

STILL_THERE = 0.25
"""A checkpoint that shows its concepts more often before any probe is no erased one: nothing can come back
to it."""

_TARGET = "resurgence"


@dataclass(frozen=True)
class Told:
    """What one property, or several, tell about settings they were not fitted on."""

    name: str
    says: str
    rank: float | None
    """Spearman's rank correlation with resurgence over the settings' means; None for several properties."""
    p: float | None
    error: float
    """Root mean square error, leaving one setting out."""
    checkpoints: int


def checkpoint_rows(
    findings: Findings, probe: str, similarities: dict[tuple[str, str], float]
) -> list[dict[str, Any]]:
    """A row an erased checkpoint that was measured before and after ``probe``.

    ``similarities``: of a concept and what it is mapped to (:func:`pairs` says which are wanted).
    """
    rows: list[dict[str, Any]] = []
    for erased in findings.plan.checkpoints(findings.chosen):
        before, after = findings.of(erased, None), findings.of(erased, probe)
        if before is None or after is None or before.record is None or after.record is None:
            continue
        mapped = [similarities[pair] for pair in _mapped(findings, erased)]
        use = findings.study.erasers[erased.eraser]
        options = use.resolved(erased.set, erased.strength)
        samples = findings.plan.samples(erased.set)
        scores = [
            o.score
            for s, o in zip(samples, before.record.outcomes, strict=True)
            if s.role == "erased" and o.score is not None
        ]
        one, two = before.value("detected"), after.value("detected")
        if not scores or one is None or two is None or one > STILL_THERE:
            continue
        probability = sum(scores) / len(scores)
        rows.append(
            {
                "set": erased.set,
                "domain": findings.study.sets[erased.set].erase[0].domain,
                "eraser": erased.eraser + ("" if erased.strength is None else f"-{erased.strength + 1}"),
                "method": use.use + (f"-{options['variant']}" if "variant" in options else ""),
                "replicate": erased.replicate,
                "arm": erased.key[:12],
                "concepts": len(findings.study.sets[erased.set].erase),
                "lambda1": options.get("lambda1"),
                "mapping_similarity": sum(mapped) / len(mapped),
                "attn2_distance": before.record.distances["attn2 keys and values"][0],
                "unet_distance": before.record.distances["unet"][0],
                "probability": probability,
                "margin": 1 - 2 * probability,
                "detected": one,
                "retained": before.value("retained"),
                "probe": probe,
                "detected_after": two,
                "resurgence": two - one,
                "retained_after": after.value("retained"),
            }
        )
    return rows


def _mapped(findings: Findings, erased: Erased) -> list[tuple[str, str]]:
    """(concept, what the eraser turns it into)."""
    use = findings.study.erasers[erased.eraser]
    eraser: Eraser = make_plugin("erasers", use.use, use.resolved(erased.set, erased.strength))
    return [
        (concept.name, door.call(eraser, eraser.mapped_to, concept))
        for concept in findings.study.sets[erased.set].erase
    ]


def pairs(findings: Findings) -> set[tuple[str, str]]:
    """The (concept, target) pairs whose similarity is wanted."""
    return {
        pair for erased in findings.plan.checkpoints(findings.chosen) for pair in _mapped(findings, erased)
    }


def similarities(opened: Checkpoint, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Cosines of the base's own pooled text embeddings (the text encoder's state at the end token) of both
    names of each pair."""
    import torch
    from torch.nn import functional

    from auditor._checkpoint.load import load_model

    model = load_model(opened, "float32")
    names = sorted({name for pair in wanted for name in pair})
    with torch.no_grad():
        pooled = functional.normalize(
            model.text_encoder(model.token_ids(names)).pooler_output.double(), dim=1
        ).cpu()
    at = {name: row for row, name in enumerate(names)}
    return {(one, two): float(pooled[at[one]] @ pooled[at[two]]) for one, two in wanted}


def told(rows: Sequence[dict[str, Any]]) -> list[Told]:
    """The mean alone, each property that differs between checkpoints, and all of them together."""
    target = np.array([row[_TARGET] for row in rows], dtype=float)
    groups = [(row["set"], row["eraser"]) for row in rows]
    columns = {
        name: np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=float)
        for name in PROPERTIES
    }
    columns = {
        name: column for name, column in columns.items() if np.isfinite(column).all() and np.ptp(column) > 0
    }
    found = [
        Told(
            "mean",
            "no property: the mean of all other settings",
            None,
            None,
            left_out_error([], target, groups),
            len(rows),
        )
    ]
    for name, column in columns.items():
        rank = _rank(column, target, groups)
        error = left_out_error([column], target, groups)
        found.append(
            Told(name, PROPERTIES[name], float(rank.statistic), float(rank.pvalue), error, len(rows))
        )
    error = left_out_error(list(columns.values()), target, groups)
    found.append(Told("all", "all of them", None, None, error, len(rows)))
    return [*found, *_lambda(rows)]


def _rank(column: np.ndarray, target: np.ndarray, groups: Sequence[object]) -> Any:
    """Over settings: replicates of one are no independent checkpoints."""
    means = [
        [float(values[[g == group for g in groups]].mean()) for group in dict.fromkeys(groups)]
        for values in (column, target)
    ]
    return spearmanr(*means)


def _lambda(rows: Sequence[dict[str, Any]]) -> list[Told]:
    """lambda1, over MACE's checkpoints alone, by rank (0 has no logarithm)."""
    own = [row for row in rows if row["lambda1"] is not None]
    values = sorted({row["lambda1"] for row in own})
    if len(values) < 3:
        return []
    column = np.array([values.index(row["lambda1"]) for row in own], dtype=float)
    target = np.array([row[_TARGET] for row in own], dtype=float)
    groups = [(row["set"], row["eraser"]) for row in own]
    rank = _rank(column, target, groups)
    says = f"rank of lambda1 among {len(values)} values, MACE's checkpoints alone"
    return [
        Told(
            "mean of MACE's",
            "no property: the mean of MACE's other settings",
            None,
            None,
            left_out_error([], target, groups),
            len(own),
        ),
        Told(
            "lambda1",
            says,
            float(rank.statistic),
            float(rank.pvalue),
            left_out_error([column], target, groups),
            len(own),
        ),
    ]


def left_out_error(columns: Sequence[np.ndarray], target: np.ndarray, groups: Sequence[object]) -> float:
    """Root mean square error of a linear least-squares model of ``target`` on standardised ``columns``,
    each group predicted without it."""
    names = sorted({str(group) for group in groups})
    member = np.array([names.index(str(group)) for group in groups])
    design = np.column_stack(
        [np.ones_like(target), *((column - column.mean()) / column.std() for column in columns)]
    )
    squares = 0.0
    for number in range(len(names)):
        out = member == number
        if out.all():
            raise ValueError("one setting cannot be predicted from none")
        weights, *_ = np.linalg.lstsq(design[~out], target[~out], rcond=None)
        squares += float(np.square(target[out] - design[out] @ weights).sum())
    return float((squares / len(target)) ** 0.5)
