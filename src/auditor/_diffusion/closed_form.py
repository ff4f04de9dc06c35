"""Closed-form refinement and fusion on Gram matrices, in float64.

Every target is the old weight times something, so all keys and values of all layers share one right factor
R = A B^-1 (refinement), and fusion needs each concept's Gram matrix and its two LoRA vectors only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from auditor.errors import AuditorError

LARGEST_CONDITION = 1e10
_RIDGE = 1e-6  # of the mean diagonal; used only where the system is worse conditioned than that


@dataclass(frozen=True)
class Solution:
    """A solved system: ``factor`` (width x width), the condition number met, and the ridge that was needed (0
    if none).

    ``condition`` is None where the smallest eigenvalue is not above 0.
    """

    factor: Tensor
    condition: float | None
    ridge: float


def gram(rows: Tensor) -> Tensor:
    """Sum of e e^T over ``rows`` (N, width), float64."""
    rows = rows.double()
    return rows.T @ rows


def cross_gram(targets: Tensor, rows: Tensor) -> Tensor:
    """Sum of h e^T over paired ``targets`` h and ``rows`` e, both (N, width), float64."""
    return targets.double().T @ rows.double()


def right_divide(numerator: Tensor, system: Tensor, anchor: Tensor | None = None) -> Solution:
    """``numerator`` @ inverse(``system``) for a symmetric positive definite ``system``, by Cholesky.

    Where the condition number exceeds 1e10, a ridge of 1e-6 of the mean diagonal is added to the system's
    diagonal, and as many times ``anchor`` to the numerator: what the solution is pulled to (0 if there is
    none). Raises :class:`AuditorError` where even that does not help.
    """
    values = torch.linalg.eigvalsh(system)
    condition = float(values[-1] / values[0]) if float(values[0]) > 0 else None
    ridge = 0.0
    if condition is None or condition > LARGEST_CONDITION:
        ridge = _RIDGE * float(system.diagonal().mean())
        system = system + ridge * torch.eye(len(system), dtype=system.dtype, device=system.device)
        numerator = numerator if anchor is None else numerator + ridge * anchor
    try:
        factor = torch.linalg.cholesky(system)
    except RuntimeError as error:
        raise AuditorError(
            "The closed form has no solution: its Gram matrix is singular; raise lambda1 or lambda_identity."
        ) from error
    return Solution(torch.cholesky_solve(numerator.T, factor).T, condition, ridge)


def refinement(mapping: Tensor, prompts: Tensor, preserved: Tensor, identity: float) -> Solution:
    """R of the refined weights W' = W R (Lu et al. 2024, Eq. 2, with the identity term of the reference's
    code).

    ``mapping`` = sum h e^T and ``prompts`` = sum e e^T over aligned tokens, ``preserved`` = the weighted Gram
    matrix of what must not change, ``identity`` = the weight of |W' - W|^2. A ridge pulls R to I.
    """
    eye = torch.eye(len(prompts), dtype=prompts.dtype, device=prompts.device)
    anchor = preserved + identity * eye
    return right_divide(mapping + anchor, prompts + anchor, eye)


@dataclass(frozen=True)
class LowRank:
    """A concept's LoRA on one projection: dW = up @ down, with up (out, r) and down (r, width)."""

    up: Tensor
    down: Tensor


@dataclass(frozen=True)
class Fusion:
    """All concepts' LoRAs in one set of weights (Lu et al. 2024, Eq. 7), in low-rank form.

    With S = l I + G + P and G = sum_i G_i the solution [W'(l I + G) + sum_i up_i (down_i G_i) + W P] S^-1 for
    W' = W R is W F + sum_i up_i (down_i G_i S^-1), F = R + (I - R) P S^-1: one factor for all projections and
    a few rows a concept.
    """

    factor: Tensor
    ups: dict[str, Tensor]
    downs: dict[str, Tensor]
    condition: float | None
    ridge: float

    def fused(self, name: str, original: Tensor) -> Tensor:
        """The projection ``name`` (out, width), float64, from its weights before erasing."""
        return original.double() @ self.factor + self.ups[name] @ self.downs[name]


def fuse(
    refined: Tensor,
    concepts: Iterable[tuple[Tensor, Mapping[str, LowRank]]],
    preserved: Tensor,
    identity: float,
) -> Fusion:
    """Fuse concepts, each its Gram matrix and its LoRA by projection, read once and one at a time.

    Each concept's prompts are to see W' + dW_i, what must be preserved (``preserved``, weighted) the weights
    before erasing, and |W* - W'|^2 weighs ``identity``; ``refined`` is R of W' = W R. Raises
    :class:`AuditorError` where the system is singular.
    """
    eye = torch.eye(len(refined), dtype=refined.dtype, device=refined.device)
    total = torch.zeros_like(refined)
    ups: dict[str, list[Tensor]] = {}
    downs: dict[str, list[Tensor]] = {}
    for own, loras in concepts:
        total += own
        seen = torch.cat([lora.down.double() for lora in loras.values()]) @ own
        for (name, lora), rows in zip(
            loras.items(), seen.split([len(lora.down) for lora in loras.values()]), strict=True
        ):
            ups.setdefault(name, []).append(lora.up.double())
            downs.setdefault(name, []).append(rows)
    sides = [preserved, *(torch.cat(rows) for rows in downs.values())]
    solution = right_divide(torch.cat(sides), total + identity * eye + preserved)
    kept, *rows = solution.factor.split([len(side) for side in sides])
    return Fusion(
        factor=refined + (eye - refined) @ kept,
        ups={name: torch.cat(parts, dim=1) for name, parts in ups.items()},
        downs=dict(zip(downs, rows, strict=True)),
        condition=solution.condition,
        ridge=solution.ridge,
    )
