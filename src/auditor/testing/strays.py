"""What a plugin leaves in the process, one sentence each with the mend."""

from __future__ import annotations

import random
from typing import Any

_MENDS = {
    "random": "it drew from Python's random numbers: draw from a random.Random(seed) of its own",
    "numpy": "it drew from NumPy's global random numbers: draw from numpy.random.default_rng(seed)",
    "torch": (
        "it drew from torch's global random numbers: give every torch.rand, randn, randint, randperm and "
        "multinomial generator=torch.Generator().manual_seed(seed), and draw noise with it instead of "
        "rand_like and randn_like"
    ),
    "gradients": "it left gradients on or off: use 'with torch.no_grad():' or 'with torch.enable_grad():'",
    "type": "it left another default type (torch.set_default_dtype): name the dtype where it is needed",
    "threads": "it left another number of threads (torch.set_num_threads): leave that to auditor",
}


def state() -> dict[str, Any]:
    """The global state of this process, by name."""
    import numpy as np
    import torch

    return {
        "random": random.getstate(),
        "numpy": str(np.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "gradients": torch.is_grad_enabled(),
        "type": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
    }


def strays(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is not as it was before, in sentences."""
    return [mend for name, mend in _MENDS.items() if before[name] != after[name]]
