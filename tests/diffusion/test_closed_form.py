"""The closed forms against the literal accumulation that they stand for, in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from auditor._diffusion.closed_form import LowRank, cross_gram, fuse, gram, refinement
from auditor.errors import AuditorError

CLOSE = 1e-10


def rows(seed: int, count: int, width: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def zeros(width: int) -> Tensor:
    return torch.zeros(width, width, dtype=torch.float64)


def literal(weight_of_targets: list[tuple[Tensor, Tensor, float]], anchor: Tensor, identity: float) -> Tensor:
    """[sum w t e^T + l W] [sum w e e^T + l I]^-1, row by row, from (targets, rows, weight)."""
    width = anchor.shape[1]
    numerator, system = identity * anchor, identity * torch.eye(width, dtype=torch.float64)
    for targets, keys, weight in weight_of_targets:
        for t, e in zip(targets, keys, strict=True):
            numerator, system = numerator + weight * torch.outer(t, e), system + weight * torch.outer(e, e)
    return numerator @ torch.linalg.inv(system)


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert (ours - theirs).abs().max() <= CLOSE * max(1.0, float(theirs.abs().max()))


@settings(deadline=None)
@given(
    seed=st.integers(0, 1000),
    out=st.integers(1, 9),
    width=st.integers(1, 20),
    prior=st.floats(0, 10),
    domain=st.floats(0, 10),
    identity=st.floats(0.1, 10),
)
def test_refinement_equals_the_per_row_solution(
    seed: int, out: int, width: int, prior: float, domain: float, identity: float
) -> None:
    weight, old, new, kept, own = rows(seed, out, width), *(rows(seed + i, 30, width) for i in (1, 2, 3, 4))
    parts = [(new @ weight.T, old, 1.0), (kept @ weight.T, kept, prior), (own @ weight.T, own, domain)]
    solved = refinement(cross_gram(new, old), gram(old), prior * gram(kept) + domain * gram(own), identity)
    assert_same(weight @ solved.factor, literal(parts, weight, identity))
    assert solved.ridge == 0


def test_without_a_prior_or_an_identity_term_it_still_does() -> None:
    weight, old, new = rows(0, 5, 12), rows(1, 40, 12), rows(2, 40, 12)
    solved = refinement(cross_gram(new, old), gram(old), zeros(12), 0.0)
    assert_same(weight @ solved.factor, literal([(new @ weight.T, old, 1.0)], weight, 0.0))


@settings(deadline=None)
@given(
    seed=st.integers(0, 1000),
    concepts=st.integers(1, 4),
    rank=st.integers(1, 3),
    width=st.integers(3, 16),
    prior=st.floats(0, 5),
    domain=st.floats(0, 5),
    identity=st.floats(0.1, 10),
)
def test_fusion_equals_the_per_row_solution(
    seed: int, concepts: int, rank: int, width: int, prior: float, domain: float, identity: float
) -> None:
    weights = {name: rows(seed + at, out, width) for at, (name, out) in enumerate((("k", 5), ("v", 3)))}
    factor = rows(seed + 7, width, width)
    texts = [rows(seed + 10 + i, 25, width) for i in range(concepts)]
    kept, own = rows(seed + 20, 20, width), rows(seed + 21, 20, width)
    loras = [
        {
            name: LowRank(rows(seed + 50 + i, len(w), rank), rows(seed + 90 + i, rank, width))
            for name, w in weights.items()
        }
        for i in range(concepts)
    ]
    fusion = fuse(
        factor,
        ((gram(text), lora) for text, lora in zip(texts, loras, strict=True)),
        prior * gram(kept) + domain * gram(own),
        identity,
    )
    for name, weight in weights.items():
        refined = weight @ factor
        parts = [(kept @ weight.T, kept, prior), (own @ weight.T, own, domain)]
        parts += [
            (text @ (refined + lora[name].up @ lora[name].down).T, text, 1.0)
            for text, lora in zip(texts, loras, strict=True)
        ]
        assert_same(fusion.fused(name, weight), literal(parts, refined, identity))


def no_lora() -> dict[str, LowRank]:
    return {"k": LowRank(torch.zeros(5, 1), torch.zeros(1, 12))}


def test_without_loras_and_prior_fusion_gives_the_refined_weights_back() -> None:
    weight, factor = rows(0, 5, 12), rows(1, 12, 12)
    fusion = fuse(factor, [(gram(rows(2, 30, 12)), no_lora())], zeros(12), 0.0)
    assert torch.allclose(fusion.fused("k", weight), weight @ factor, atol=1e-10)


def test_a_heavy_identity_term_leaves_the_refined_weights_where_they_are() -> None:
    weight, factor = rows(0, 5, 12), rows(1, 12, 12)
    lora = {"k": LowRank(rows(3, 5, 1), rows(4, 1, 12))}
    fusion = fuse(factor, [(gram(rows(2, 30, 12)), lora)], zeros(12), 1e12)
    assert torch.allclose(fusion.fused("k", weight), weight @ factor, atol=1e-6)


def test_a_heavy_prior_brings_the_original_weights_back() -> None:
    weight, factor = rows(0, 5, 12), rows(1, 12, 12)
    fusion = fuse(factor, [(gram(rows(2, 30, 12)), no_lora())], 1e12 * gram(rows(5, 40, 12)), 0.0)
    assert torch.allclose(fusion.fused("k", weight), weight, atol=1e-6)


def test_a_singular_system_gets_a_named_ridge() -> None:
    few = rows(3, 2, 12)
    solution = refinement(gram(few), gram(few), zeros(12), 0.0)
    assert solution.ridge > 0
    assert torch.allclose(solution.factor, torch.eye(12, dtype=torch.float64), atol=1e-6)
    weight = rows(0, 5, 12)
    fusion = fuse(solution.factor, [(gram(few), no_lora())], zeros(12), 0.0)
    assert fusion.ridge > 0
    assert torch.allclose(fusion.fused("k", weight), weight, atol=1e-5)


def test_a_system_of_nothing_is_refused() -> None:
    with pytest.raises(AuditorError, match="no solution"):
        refinement(zeros(12), zeros(12), zeros(12), 0.0)


def test_mapping_a_concept_to_itself_changes_nothing() -> None:
    old = rows(4, 40, 12)
    solution = refinement(gram(old), gram(old), 0 * gram(old), 1.0)
    assert torch.allclose(solution.factor, torch.eye(12, dtype=torch.float64), atol=1e-10)
