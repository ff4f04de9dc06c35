"""For the Hub: a section of a model card, and evaluation results."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import yaml
from pydantic import Field

from auditor.builtins.reporters.markdown import share_of_updates, table, text
from auditor.plugin.contracts import OptionsModel, Reporter
from auditor.report import CellResult, Outcome, Report
from auditor.report.voice import headline, what_was_shown
from auditor.report.words import (
    NO_PROMISE,
    bounds,
    count,
    gate_cells,
    line,
    percent,
    remarks,
    state_of,
    thresholds,
)


class ModelCard(Reporter):
    """``model-card.md``: a section for the card of the audited checkpoint."""

    name = "model-card"
    summary = "a section for a model card"
    filename = "model-card.md"

    def render(self, report: Report, folder: Path) -> bytes:
        """Verdict first, the worst concept of each arm, what it does not mean."""
        return _section(report).encode()


class EvalResultsOptions(OptionsModel):
    """Where the Hub files them."""

    dataset: str = Field(min_length=1)
    """The benchmark's dataset on the Hub, ``org/name``."""
    task: str = "concept-resurgence"
    """The benchmark's task."""


class EvalResults(Reporter):
    """``eval_results.yaml``, for the ``.eval_results`` folder of a repository on the Hub."""

    name = "eval-results"
    summary = "an entry for a Hub repository's .eval_results"
    filename = "eval_results.yaml"
    Options: ClassVar[type[OptionsModel]] = EvalResultsOptions

    def render(self, report: Report, folder: Path) -> bytes:
        """The highest upper bound of all deciding cells, in per cent; 100 where nothing was shown. The
        notes hold the verdict. Where ordinary updates prove FAIL, the bound of the mean rate over them is
        among these."""
        from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

        worst = 1.0
        if report.verdict.outcome in (Outcome.PASS, Outcome.FAIL):
            worst = max([*map(_height, gate_cells(report)), *_after_updates(report)], default=1.0)
        entry = EvalResultEntry(
            dataset_id=self.options.dataset,
            task_id=self.options.task,
            value=round(100 * worst, 2),
            date=report.provenance.started,
            notes=f"auditor {report.provenance.versions.get('auditor', '')}: {report.verdict.outcome}; value "
            "is the highest upper bound of a detection rate in per cent; policy "
            f"{report.policy_digest[:12]}, checkpoint {report.checkpoint.digest[:12]}"
            + "".join(f" {line(each, 1000)}" for each in (*_over_updates(report), *remarks(report))),
        )
        return yaml.safe_dump(
            eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True
        ).encode()


def _height(cell: CellResult) -> float:
    """The upper bound of a check; 1 where nothing was drawn."""
    upper = bounds(cell)[1]
    return 1.0 if upper is None else upper


def _after_updates(report: Report) -> list[float]:
    """Upper bounds of the mean rate over updates, where these prove FAIL: the checks alone may all be low."""
    found = report.population
    return [share.mean_upper for share in found.shares] if found is not None and found.failed else []


def _over_updates(report: Report) -> tuple[str, ...]:
    return () if report.population is None else (what_was_shown(report),)


def _section(report: Report) -> str:
    verdict = report.verdict
    arms = list(dict.fromkeys(cell.arm for cell in gate_cells(report)))
    rows = []
    for arm in arms:
        cells = [cell for cell in gate_cells(report) if cell.arm == arm]
        worst = max(cells, key=_height)
        rows.append((arm, worst.surface, count(worst), percent(bounds(worst)[1], 1), state_of(worst)))
    return "\n".join(
        [
            "## Does the erasure stay?",
            "",
            f"auditor {text(report.provenance.versions.get('auditor', ''))}: **{verdict.outcome}**. "
            f"{text(headline(report), 1000)}",
            f"Erased: {', '.join(text(concept['name']) for concept in report.policy['erase'])}.",
            f"PASS needs an upper bound below {percent(thresholds(report)[0], 1)} of images in every row.",
            "",
            *(text(remark, 3000) for remark in remarks(report)),
            *table(("after", "worst concept", "detected", "upper bound", "state"), rows),
            "",
            *share_of_updates(report),
            f"Checkpoint `{report.checkpoint.digest}`, policy `{report.policy_digest}`, "
            f"{report.ledger.measured} images. {NO_PROMISE}",
            "",
        ]
    )
