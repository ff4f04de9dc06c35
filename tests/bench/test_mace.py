"""MACE's closed forms beside the literal per-layer accumulation, on Stable Diffusion 1.x' layers. ``make
bench`` prints the ratios."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from auditor._diffusion.closed_form import LowRank, cross_gram, fuse, gram, refinement
from tests.science.mace_size import sd1_projections

pytestmark = pytest.mark.bench
CONCEPTS, PROMPTS, ALIGNED, IDENTITY = 2, 30, 75, 10.0


def test_closed_forms_are_thirty_times_faster_than_layer_by_layer() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = sd1_projections()
    old, new = (torch.randn(CONCEPTS, PROMPTS, 77, 768, generator=generator) for _ in range(2))
    loras = [
        {
            name: LowRank(
                torch.randn(len(w), 1, generator=generator), torch.randn(1, 768, generator=generator)
            )
            for name, w in weights.items()
        }
        for _ in range(CONCEPTS)
    ]
    began = time.perf_counter()
    ours = shared_factor(weights, old, new, loras)
    fast = time.perf_counter() - began
    began = time.perf_counter()
    literal = layer_by_layer(weights, old, new, loras)
    slow = time.perf_counter() - began
    worst = max(
        float((ours[name] - value).abs().max() / value.abs().max()) for name, value in literal.items()
    )
    print(
        f"closed forms of {CONCEPTS} concepts x {PROMPTS} prompts: {fast:.2f} s, layer by layer {slow:.1f} "
        f"s: {slow / fast:.0f} x"
    )
    assert worst < 1e-4, "float32 against float64"
    assert slow / fast >= 30


def shared_factor(
    weights: dict[str, Tensor], old: Tensor, new: Tensor, loras: list[dict[str, LowRank]]
) -> dict[str, Tensor]:
    mapping = sum(
        cross_gram(n[:, :ALIGNED].flatten(0, 1), o[:, :ALIGNED].flatten(0, 1))
        for o, n in zip(old, new, strict=True)
    )
    aligned = sum(gram(o[:, :ALIGNED].flatten(0, 1)) for o in old)
    assert isinstance(mapping, Tensor) and isinstance(aligned, Tensor)
    nothing = torch.zeros(768, 768, dtype=torch.float64)
    factor = refinement(mapping, aligned, nothing, IDENTITY).factor
    fusion = fuse(
        factor, ((gram(o.flatten(0, 1)), lora) for o, lora in zip(old, loras, strict=True)), nothing, IDENTITY
    )
    return {name: fusion.fused(name, weight).float() for name, weight in weights.items()}


def layer_by_layer(
    weights: dict[str, Tensor], old: Tensor, new: Tensor, loras: list[dict[str, LowRank]]
) -> dict[str, Tensor]:
    """Both systems anew for every projection, from each prompt's outer products, float32, explicit
    inverses (mace.md, 1.5 and 1.7)."""
    found = {}
    eye = torch.eye(768)
    for name, weight in weights.items():
        refined = solve(
            weight,
            [
                (n[:ALIGNED] @ weight.T, o[:ALIGNED])
                for os, ns in zip(old, new, strict=True)
                for o, n in zip(os, ns, strict=True)
            ],
            eye,
        )
        targets = [
            (o @ (refined + lora[name].up @ lora[name].down).T, o)
            for os, lora in zip(old, loras, strict=True)
            for o in os
        ]
        found[name] = solve(refined, targets, eye)
    return found


def solve(anchor: Tensor, pairs: list[tuple[Tensor, Tensor]], eye: Tensor) -> Tensor:
    numerator, system = IDENTITY * anchor, IDENTITY * eye
    # once: making it is slow too
    products = torch.empty(max(len(keys) for _, keys in pairs), max(len(anchor), len(eye)), len(eye))
    for values, keys in pairs:
        for total, left in ((numerator, values), (system, keys)):
            outer = products[: len(keys), : left.shape[1]]
            torch.mul(left[:, :, None], keys[:, None, :], out=outer)
            total += outer.sum(0)
    return numerator @ torch.inverse(system)
