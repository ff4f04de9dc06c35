"""Reads a study's file with the catalogue beside it, and refuses what could not be answered before
anything is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from auditor._files.documents import read_mapping, read_yaml
from auditor._study.document import CHANGE, ROLES, Figure, Study
from auditor.errors import PolicyError

_CHOSEN = ("sets", "erasers", "probes")


def load_study(path: Path) -> Study:
    """Read a study, with the catalogue that it is ``from``. Raises :class:`PolicyError` with file and
    line."""
    own, catalogue = read_mapping(path), dict[str, Any]()
    beside = [path.parent / str(own["from"])] if "from" in own else []
    for file in beside:
        catalogue = read_mapping(file)
    for key in _CHOSEN:
        entries = catalogue.pop(key, {})
        if key in own:
            own[key] = _choose(path, key, own[key], entries)
    study = read_yaml(
        path, Study, data=catalogue | {key: value for key, value in own.items() if key != "from"}, also=beside
    )
    for figure in study.figures:
        _check_figure(path, study, figure)
    return study


def _check_figure(path: Path, study: Study, figure: Figure) -> None:
    """What a figure names must be measured: its bars' probes and doses, its measures. Raises
    :class:`PolicyError`."""
    known = {*ROLES, "resurgence", *(use.use for use in study.metrics)}
    for measure in (figure.measure, *(claim.measure for claim in figure.claims)):
        if measure.removeprefix(CHANGE) not in known:
            raise PolicyError(
                f"{path}: figure {figure.name}: nothing called '{measure}' is measured; there are "
                f"{', '.join(sorted(known))}."
            )
    for bar in figure.bars:
        uses = dict(study.uses(bar.set or next(iter(study.sets))))
        if bar.probe not in uses and not (bar.probe is None and len(uses) == 1):
            raise PolicyError(
                f"{path}: figure {figure.name}, bar '{bar.label}': its 'probe' is one of "
                f"{', '.join(uses) or 'none'}."
            )
        doses = uses[bar.probe or next(iter(uses))].doses
        if bar.dose is not None and bar.dose not in doses:
            raise PolicyError(
                f"{path}: figure {figure.name}, bar '{bar.label}': its 'dose' is one of "
                f"{', '.join(map(str, doses))}."
            )


def _choose(path: Path, key: str, asked: Any, catalogue: dict[str, Any]) -> Any:
    """Names, or a mapping whose empty entries are names too, with what the catalogue says under them."""
    entries = dict.fromkeys(asked) if isinstance(asked, list) else asked
    if not isinstance(entries, dict):
        return asked
    unknown = next((name for name, value in entries.items() if value is None and name not in catalogue), None)
    if unknown is not None:
        raise PolicyError(
            f"{path}: '{key}' names '{unknown}', which the catalogue has not; it has "
            f"{', '.join(catalogue) or 'none'}."
        )
    return {name: catalogue[name] if value is None else value for name, value in entries.items()}
