"""How far apart the denoisers of two models lie: relative L2 distance and cosine, block by block, in one pass
over the tensors."""

from __future__ import annotations

import math

import torch

from auditor._diffusion.model import DiffusionModel


@torch.no_grad()
def weight_distances(base: DiffusionModel, other: DiffusionModel) -> dict[str, tuple[float, float]]:
    """(relative L2 distance, cosine) of the whole denoiser, under its part's name, and of each of its groups
    (:meth:`~auditor.families.family.Family.groups`).

    The relative distance is the norm of other - base divided by the norm of base.
    """
    sums: dict[str, list[float]] = {}
    theirs, family = other.denoiser.state_dict(), base.family
    for name, before in base.denoiser.state_dict().items():
        one, two = before.double().flatten(), theirs[name].to(before.device).double().flatten()
        change = two - one
        values = [float(a @ b) for a, b in ((change, change), (one, one), (two, two), (one, two))]
        for part in (family.denoiser, *family.groups(name)):
            sums[part] = [
                total + value for total, value in zip(sums.get(part, [0.0] * 4), values, strict=True)
            ]
    return {part: _measures(*total) for part, total in sums.items()}


def _measures(change: float, one: float, two: float, product: float) -> tuple[float, float]:
    relative = math.sqrt(change / one) if one else 0.0
    return relative, product / math.sqrt(one * two) if one and two else 1.0
