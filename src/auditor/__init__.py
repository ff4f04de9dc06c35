"""auditor: does an erased concept stay gone?

Importing this module loads no torch; the first call does.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from auditor._audit.audit import audit
    from auditor._audit.judge import judge_folder
    from auditor._audit.replay import replay
    from auditor._erase.erase import erase
    from auditor.policy import Policy, load_policy
    from auditor.report import Report

__all__ = ["Policy", "Report", "audit", "erase", "judge_folder", "load_policy", "replay"]

_HOMES = {
    "Policy": "auditor.policy",
    "Report": "auditor.report",
    "audit": "auditor._audit.audit",
    "erase": "auditor._erase.erase",
    "judge_folder": "auditor._audit.judge",
    "load_policy": "auditor.policy",
    "replay": "auditor._audit.replay",
}


logging.getLogger(__name__).addHandler(logging.NullHandler())  # who uses the library decides what is shown


# what a checkpoint's files say may never make a library fetch or run code, in this process or those it starts
os.environ.update(
    DIFFUSERS_DISABLE_REMOTE_CODE="true",
    DIFFUSERS_TRUST_REMOTE_KERNELS="false",
    TRUST_REMOTE_CODE="false",
    USE_HUB_KERNELS="NO",
)


# torch's threads wait busily for each other: beside another busy process they are up to eleven times slower
# without a bound; read when torch is first imported
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# with it cuBLAS gives the same bits each time; read when a GPU is first used
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'auditor' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
