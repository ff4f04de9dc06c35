"""The prediction that a checkpoint is drawn by: what its files say, or what was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from auditor._files.safetensors_header import Header
from auditor.errors import RefusedError, UsageError
from auditor.families.family import Family


def prediction_of(
    family: Family, source: str, header: Header, schedule: Mapping[str, Any], chosen: str | None, where: str
) -> str:
    """The prediction that a checkpoint is drawn by: what its file and its scheduler's configuration
    (``where`` that lies) say, if that is one thing, or the one that was ``chosen``.

    Raises :class:`RefusedError` where file and configuration disagree and nothing was chosen, or where the
    file says that it is of another noise schedule.
    """
    known = family.schedules.predictions
    declared = str(schedule.get("prediction_type", known[0]))
    if chosen is not None and chosen not in known:
        raise UsageError(f"There is no prediction {chosen}; {' or '.join(known)} can be chosen.")
    said = family.said_prediction(source, header)
    family.refuse_other_noise(source, header, schedule, where)
    if chosen is None and said is not None and said != declared:
        raise RefusedError(
            f"{source} says that it predicts {said}, {where} says {declared}; say which is right with "
            "--prediction."
        )
    return chosen or declared
