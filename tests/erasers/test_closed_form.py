"""The closed forms against the literal accumulation that they stand for, in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from auditor.erasers.closed_form import LowRank, cross_gram, fuse, gram, refinement

WIDTH = 12


def rows(seed: int, count: int) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 9), st.floats(0, 10), st.floats(0.1, 10))
def test_refinement_equals_the_per_row_solution(seed: int, out: int, prior: float, identity: float) -> None:
    weight, old, new, kept = rows(seed, out), rows(seed + 1, 30), rows(seed + 2, 30), rows(seed + 3, 20)
    numerator, system = identity * weight, identity * torch.eye(WIDTH, dtype=torch.float64)
    for e, h in zip(old, new, strict=True):
        numerator, system = numerator + torch.outer(weight @ h, e), system + torch.outer(e, e)
    for e in kept:
        numerator, system = numerator + prior * torch.outer(weight @ e, e), system + prior * torch.outer(e, e)
    literal = numerator @ torch.linalg.inv(system)
    ours = weight @ refinement(cross_gram(new, old), gram(old), prior * gram(kept), identity).factor
    assert (literal - ours).abs().max() <= 1e-10 * max(1, literal.abs().max())


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4), st.floats(0, 5), st.floats(0.1, 10))
def test_fusion_equals_the_per_row_solution(seed: int, concepts: int, prior: float, identity: float) -> None:
    original, refined, kept = rows(seed, 5), rows(seed + 1, 5), rows(seed + 2, 20)
    texts = [rows(seed + 10 + i, 25) for i in range(concepts)]
    loras = [LowRank(rows(seed + 50 + i, 5)[:, :1], rows(seed + 90 + i, 1)) for i in range(concepts)]
    numerator, system = identity * refined, identity * torch.eye(WIDTH, dtype=torch.float64)
    for lora, own in zip(loras, texts, strict=True):
        for e in own:
            numerator = numerator + torch.outer((refined + lora.up @ lora.down) @ e, e)
            system = system + torch.outer(e, e)
    for e in kept:
        numerator, system = numerator + prior * torch.outer(original @ e, e), system + prior * torch.outer(e, e)
    literal = numerator @ torch.linalg.inv(system)
    ours = fuse(original, refined, loras, [gram(own) for own in texts], prior * gram(kept), identity)
    assert (literal - ours).abs().max() <= 1e-9 * max(1, literal.abs().max())


def test_without_loras_and_prior_fusion_gives_the_refined_weights_back() -> None:
    refined = rows(1, 5)
    zero = LowRank(torch.zeros(5, 1), torch.zeros(1, WIDTH))
    fused = fuse(rows(0, 5), refined, [zero], [gram(rows(2, 30))], torch.zeros(WIDTH, WIDTH, dtype=torch.float64), 0.0)
    assert torch.allclose(fused, refined, atol=1e-10)


def test_a_singular_system_gets_a_named_ridge() -> None:
    few = rows(3, 2)
    solution = refinement(gram(few), gram(few), torch.zeros(WIDTH, WIDTH, dtype=torch.float64), 0.0)
    assert solution.ridge > 0
    assert torch.allclose(solution.factor, torch.eye(WIDTH, dtype=torch.float64), atol=1e-6)


def test_mapping_a_concept_to_itself_changes_nothing() -> None:
    old = rows(4, 40)
    solution = refinement(gram(old), gram(old), 0 * gram(old), 1.0)
    assert torch.allclose(solution.factor, torch.eye(WIDTH, dtype=torch.float64), atol=1e-10)


@pytest.mark.parametrize("length", [1000])
def test_focal_timesteps_follow_their_density(length: int) -> None:
    from auditor.erasers.mace.lora import focal_timesteps

    drawn = focal_timesteps(length, torch.Generator().manual_seed(0), 200_000).double()
    quantiles = torch.quantile(drawn, torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64))
    assert torch.allclose(quantiles, torch.tensor([191.0, 248.0, 300.0, 352.0, 409.0], dtype=torch.float64), atol=2.5)
