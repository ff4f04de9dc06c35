"""auditor: does an erased concept stay gone?

Importing this module loads no torch; the first call does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from auditor.auditing import audit
    from auditor.erasing import erase
    from auditor.judging import judge_folder
    from auditor.policy import Policy, load_policy
    from auditor.report import Report

__all__ = ["Policy", "Report", "audit", "erase", "judge_folder", "load_policy"]

_HOMES = {
    "Policy": "auditor.policy",
    "Report": "auditor.report",
    "audit": "auditor.auditing",
    "erase": "auditor.erasing",
    "judge_folder": "auditor.auditing",
    "load_policy": "auditor.policy",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'auditor' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
