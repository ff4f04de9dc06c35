"""Whole erasures and audits in a few steps, whatever the device: what breaks, or is not as it was.

Used on a real GPU (``make gpu``) and on a pretended one (:mod:`tests.pretended_gpu`); they need nothing
beside auditor itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SAMPLER = {"scheduler": "dpm-solver++", "steps": 3, "guidance": 4.0, "size": 32}
PROMPTS = [f"a photo of {what}" for what in ("a dog", "a horse", "an airplane", "a lamp", "an orange")]
TRAIN = {
    "candidates": "micro-people",
    "prompts": "paper-people",
    "names": 2,
    "images_per_prompt": 1,
    "learning_rate": 1e-3,
    "batch": 4,
}
ERASERS: dict[str, dict[str, Any]] = {
    "esd": {"steps": 2, "sampling_steps": 2, "size": 32, "batch": 2, "pool": 2, "learning_rate": 1e-3},
    "mace": {
        "preserve": "micro-all",
        "steps": 2,
        "sampling_steps": 2,
        "size": 32,
        "images": 2,
        "lambda_identity": 10.0,
    },
    "uce": {"preserve": "micro-all", "push": 1.0, "push_templates": ["{}"]},
}
"""A few steps of each."""


def small_policy(**changes: Any) -> Any:
    """One person of the micro world, two retained ones, three probes of two steps, a metric."""
    from auditor.policy import Policy

    people = {"domain": "people", "prompts": "paper-people"}
    document: dict[str, Any] = {
        "version": 1,
        "base": {"source": "micro"},
        "erase": [people | {"name": "Borin Talvek", "mapping": "a person"}],
        "retain": [people | {"name": name} for name in ("Zelda Mirkov", "Dorval Quint")],
        "sampler": SAMPLER,
        "probes": [
            {"use": "in-domain", "method": "lora", "doses": [2], "options": TRAIN},
            {"use": "in-domain", "method": "full", "doses": [2], "options": TRAIN},
            {
                "use": "clip-tercile",
                "method": "lora",
                "doses": [2],
                "options": TRAIN | {"tercile": 1, "split": "count", "model": "micro"},
            },
        ],
        "detectors": [
            {
                "use": "clip-zero-shot",
                "options": {"model": "micro", "labels": "micro-all", "templates": "erasure-templates"},
            }
        ],
        "metrics": [{"use": "clip-score", "options": {"model": "micro"}}],
        "limits": {"max_false_positive": 0.05},
        "sequential": False,
        "budget": {"images_per_cell": 10, "retained_per_arm": 10},
    }
    return Policy.model_validate_json(json.dumps(document | changes))


def erase_with(eraser: str, folder: Path) -> Path:
    """The micro world, erased in a few steps; the folder that was written."""
    from auditor._erase.erase import erase

    return erase("micro", small_policy(), eraser, folder / eraser, options=ERASERS[eraser])


FEWER = {
    "probes": [{"use": "in-domain", "method": "lora", "doses": [2], "options": TRAIN}],
    "metrics": [],
    "sampler": SAMPLER | {"steps": 2},
    "budget": {"images_per_cell": 5, "retained_per_arm": 10},
}
"""What makes the small policy one for a quick look."""


def audit_and_replay(checkpoint: Path, folder: Path, again: int = 20, **changes: Any) -> dict[str, Any]:
    """An audit by the small policy with ``changes``, and its replay of ``again`` images."""
    import auditor
    from auditor._audit.replay import replay

    auditor.audit(str(checkpoint), small_policy(**changes), folder / "run", cache=folder / "cache")
    report = replay(folder / "run", again)
    drawn = report.provenance.replay
    assert drawn is not None
    return {
        "errors": errors_of(folder / "run"),
        "device": report.provenance.device,
        "shams": [line["different"] for line in lines_of(folder / "run", "sham")],
        "replayed": drawn.images,
        "identical": drawn.identical,
    }


def lines_of(run: Path, *kinds: str) -> list[dict[str, Any]]:
    """The lines of a run's journal, of some kinds or of all."""
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if not kinds or line["kind"] in kinds]


def errors_of(run: Path) -> list[str]:
    """Errors and notes of a journal, images that were not scored, no-op controls that changed an image."""
    found = [line["message"] for line in lines_of(run, "error")]
    found += [line["text"] for line in lines_of(run, "note")]
    found += [each["error"] for line in lines_of(run, "batch") for each in line["samples"] if each["error"]]
    found += [
        f"sham: {line['different']} images differ" for line in lines_of(run, "sham") if line["different"]
    ]
    return found
