"""Reads prompt sets as the field's evaluation files hold them: ``prompt``, ``evaluation_seed``, perhaps
``type`` and ``concept``."""

from __future__ import annotations

import csv
import re
from pathlib import Path


def read_prompts(path: Path, concept: str) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Templates with ``{}`` in the place of ``concept``, and each one's seeds in the file's order.

    Rows belong to a concept by their column ``concept`` where there is one, else by their prompt. Raises
    ``ValueError`` with the row.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"cannot read the prompts in {path}: {getattr(error, 'strerror', None) or error}"
        ) from error
    columns = set(reader.fieldnames or ())
    if missing := {"prompt", "evaluation_seed"} - columns:
        raise ValueError(f"{path} has no column '{min(missing)}'; 'prompt' and 'evaluation_seed' are needed")
    named = re.compile(rf"(?<!\w){re.escape(concept)}(?!\w)", re.IGNORECASE)
    seeds: dict[str, list[int]] = {}
    for number, row in enumerate(rows, 2):
        prompt, own = row["prompt"] or "", (row.get("concept") or "").strip()
        if own.casefold() != concept.casefold() if "concept" in columns else not named.search(prompt):
            continue
        if "{" in prompt or "}" in prompt or len(named.findall(prompt)) != 1:
            raise ValueError(
                f"{path}:{number}: the prompt {prompt!r} must name '{concept}' once and have no brace"
            )
        try:
            seed = int(row["evaluation_seed"])
        except (TypeError, ValueError):
            seed = -1
        if not 0 <= seed < 2**63:
            raise ValueError(
                f"{path}:{number}: evaluation_seed is {row['evaluation_seed']!r}; a whole number from 0 is "
                "right"
            )
        own_seeds = seeds.setdefault(named.sub("{}", prompt), [])
        if seed in own_seeds:
            raise ValueError(
                f"{path}:{number}: the prompt {prompt!r} has the seed {seed} twice; one image is one piece "
                "of evidence"
            )
        own_seeds.append(seed)
    if len({len(each) for each in seeds.values()}) > 1:
        counts = ", ".join(f"{template!r}: {len(each)}" for template, each in list(seeds.items())[:4])
        raise ValueError(
            f"{path} has not as many seeds for each prompt of '{concept}' ({counts}); a round is one image "
            "of every prompt"
        )
    if not seeds:
        raise ValueError(f"{path} has no prompt for '{concept}'")
    return tuple(seeds), tuple(tuple(each) for each in seeds.values())
