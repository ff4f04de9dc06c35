"""Closed-form refinement and fusion on Gram matrices, in float64.

Every target is the old weight times something, so all keys and values of all layers share one right factor
R = A B^-1 (refinement), and fusion needs each concept's Gram matrix and its two LoRA vectors only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from auditor.errors import AuditorError

LARGEST_CONDITION = 1e10
_RIDGE = 1e-6  # of the mean diagonal; used only where the system is worse conditioned than that


@dataclass(frozen=True)
class Solution:
    """A solved system: ``factor`` (width x width), the condition number met, and the ridge that was needed (0 if none)."""

    factor: Tensor
    condition: float
    ridge: float


def gram(rows: Tensor) -> Tensor:
    """Sum of e e^T over ``rows`` (N, width), float64."""
    rows = rows.double()
    return rows.T @ rows


def cross_gram(targets: Tensor, rows: Tensor) -> Tensor:
    """Sum of h e^T over paired ``targets`` h and ``rows`` e, both (N, width), float64."""
    return targets.double().T @ rows.double()


def right_divide(numerator: Tensor, system: Tensor) -> Solution:
    """``numerator`` @ inverse(``system``) for a symmetric positive definite ``system``, by Cholesky.

    A ridge of 1e-6 of the mean diagonal is added to the system, and the same to what it multiplies by the caller's own
    anchor, only where the condition number exceeds 1e10. Raises :class:`AuditorError` where even that does not help.
    """
    values = torch.linalg.eigvalsh(system)
    condition = float(values[-1] / values[0].clamp(min=torch.finfo(values.dtype).tiny))
    ridge = 0.0
    if condition > LARGEST_CONDITION or float(values[0]) <= 0:
        ridge = _RIDGE * float(system.diagonal().mean())
        system = system + ridge * torch.eye(len(system), dtype=system.dtype, device=system.device)
    try:
        factor = torch.linalg.cholesky(system)
    except RuntimeError as error:
        raise AuditorError("The closed form has no solution: its Gram matrix is singular; raise lambda1 or lambda_identity.") from error
    return Solution(torch.cholesky_solve(numerator.T, factor).T, condition, ridge)


def refinement(mapping: Tensor, prompts: Tensor, preserved: Tensor, identity: float) -> Solution:
    """R of the refined weights W' = W R (Lu et al. 2024, Eq. 2, with the identity term of the reference's code).

    ``mapping`` = sum h e^T and ``prompts`` = sum e e^T over aligned tokens, ``preserved`` = the weighted Gram matrix of what
    must not change, ``identity`` = the weight of |W' - W|^2. A ridge is added to both sides, so that it pulls R to I.
    """
    eye = torch.eye(len(prompts), dtype=prompts.dtype, device=prompts.device)
    anchor = preserved + identity * eye
    solution = right_divide(mapping + anchor, prompts + anchor)
    if solution.ridge:
        anchored = right_divide(mapping + anchor + solution.ridge * eye, prompts + anchor + solution.ridge * eye)
        return Solution(anchored.factor, solution.condition, solution.ridge)
    return solution


@dataclass(frozen=True)
class LowRank:
    """A concept's LoRA on one projection: dW = up @ down, with up (out, r) and down (r, width)."""

    up: Tensor
    down: Tensor


def fuse(
    original: Tensor, refined: Tensor, loras: Sequence[LowRank], grams: Sequence[Tensor], preserved: Tensor, identity: float
) -> Tensor:
    """One projection with all concepts' LoRAs in it (Lu et al. 2024, Eq. 7), float64.

    W* = [W'(l I + G) + sum_i up_i (down_i G_i) + W P] (l I + G + P)^-1 with G = sum_i G_i: each concept's prompts see
    W' + dW_i, what must be preserved sees the original W, and |W* - W'|^2 weighs ``identity``.
    """
    total = torch.stack(list(grams)).sum(0)
    eye = torch.eye(len(total), dtype=total.dtype, device=total.device)
    numerator = refined.double() @ (total + identity * eye) + original.double() @ preserved
    for lora, own in zip(loras, grams, strict=True):
        numerator = numerator + lora.up.double() @ (lora.down.double() @ own)
    system = total + identity * eye + preserved
    solution = right_divide(numerator, system)
    if solution.ridge:
        numerator = numerator + solution.ridge * refined.double()
        solution = right_divide(numerator, system + solution.ridge * eye)
    return solution.factor


def sum_grams(batches: Iterable[Tensor], width: int) -> Tensor:
    """The Gram matrix of all rows of all batches (N, tokens, width), streamed."""
    total = torch.zeros(width, width, dtype=torch.float64)
    for batch in batches:
        total = total + gram(batch.flatten(0, -2).cpu())
    return total
