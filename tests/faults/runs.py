"""What fault tests ask of finished runs: the report without its times, and what the journal says was
drawn."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from auditor._journal.file import read_journal
from auditor._journal.lines import ArmLine, BatchLine, Line
from tests.conftest import short_policy

SMALL = {"images_per_cell": 10, "retained_per_arm": 10}
QUICK = {"scheduler": "dpm-solver++", "steps": 5, "guidance": 4.0, "size": 32}
_TIMES = ("seconds", "started", "command", "minutes")


def policy_file(folder: Path, **changes: object) -> Path:
    """The short policy with ``changes``, as a file in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(short_policy(**changes).model_dump(mode="json")))
    return path


def command(erased: Path, policy: Path, folder: Path) -> list[str]:
    """``auditor audit`` with run folder and cache in ``folder``."""
    return [
        "audit",
        str(erased),
        "--policy",
        str(policy),
        "--out",
        str(folder / "run"),
        "--cache",
        str(folder / "cache"),
    ]


def timeless(out: Path) -> str:
    """``report.json`` less how long things took and when, as text."""
    return json.dumps(_without_times(json.loads((out / "report.json").read_text())), indent=1)


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(inner) for key, inner in value.items() if key not in _TIMES}
    if isinstance(value, str):  # what would decide is said with the minutes that it takes
        return re.sub(r", about (a minute|\d+ minutes)", "", value)
    return [_without_times(inner) for inner in value] if isinstance(value, list) else value


def lines_of(out: Path) -> list[Line]:
    """The journal."""
    return read_journal(out / "journal.jsonl")


def batches(out: Path) -> list[tuple[str, Any]]:
    """Arm and samples of every batch, in the order they were drawn."""
    return [(line.arm, line.samples) for line in lines_of(out) if isinstance(line, BatchLine)]


def drawn_twice(out: Path) -> list[tuple[str, str, int, int]]:
    """Samples that stand in the journal more than once."""
    samples = Counter((s.cell, s.prompt, s.index, s.seed) for _, batch in batches(out) for s in batch)
    return [sample for sample, times in samples.items() if times > 1]


def weights_of(out: Path) -> dict[str, set[str]]:
    """For every arm the weights that the journal says it had."""
    found: dict[str, set[str]] = {}
    for line in lines_of(out):
        if isinstance(line, ArmLine):
            found.setdefault(line.arm, set()).add(line.weights)
    return found


def torn_pictures(out: Path) -> list[str]:
    """Images of the journal whose file is missing or does not hold what its name says."""
    named = [sample.image for _, batch in batches(out) for sample in batch if sample.image]
    return [name for name in named if not _holds(out / "images" / f"{name}.png", name)]


def _holds(path: Path, name: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == name
