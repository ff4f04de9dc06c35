"""UCE against its own equation, and what every eraser must pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from auditor.plugin import Erasure, UsageError
from auditor.testing import EraserConformance, Kit
from auditor_uce import Uce, UceOptions, last_token_states


class TestUce(EraserConformance):
    plugin = Uce
    options = {"guide": None, "preserve": "micro-people"}


def literal(
    model: Any, weight: torch.Tensor, pairs: list[tuple[str, str]], kept: list[str], lam: float
) -> torch.Tensor:
    """The equation for one weight, term by term and with an explicit inverse."""
    width = weight.shape[1]
    left, right = lam * weight, lam * torch.eye(width, dtype=torch.float64)
    for phrase, guide in pairs:
        c, g = last_token_states(model, [phrase])[0], last_token_states(model, [guide])[0]
        left, right = left + torch.outer(weight @ g, c), right + torch.outer(c, c)
    for name in kept:
        p = last_token_states(model, [name])[0]
        left, right = left + torch.outer(weight @ p, p), right + torch.outer(p, p)
    return left @ torch.linalg.inv(right)


@pytest.mark.parametrize("guide", [None, ""])
def test_every_projection_is_the_equations_solution(micro: Kit, guide: str | None) -> None:
    model, concept = micro.model(), micro.policy.erase[0]
    before = {name: weight.detach().double().clone() for name, weight in model.projections().items()}
    record = Uce(UceOptions(guide=guide)).erase(Erasure(model, (concept,), micro.policy.retain, 0))
    assert record["preserved"] == 1 and record["condition"] > 1
    kept = [kept.name for kept in micro.policy.retain]
    for name, weight in model.projections().items():
        wanted = literal(
            model, before[name], [(concept.name, concept.mapping if guide is None else "")], kept, 0.5
        )
        assert torch.allclose(weight.double(), wanted, atol=1e-5 * float(wanted.abs().max()))


def test_an_edit_of_concepts_to_themselves_changes_nothing_however_ill_conditioned(micro: Kit) -> None:
    """Then the ridge is needed, and must pull to the weights as they are and not to 0."""
    # the same last token in another place
    model, concept = (
        micro.model(),
        micro.policy.erase[0].model_copy(update={"mapping": "Talvek"}),
    )
    record = Uce(UceOptions(guide=None, lambda_identity=1e-11)).erase(
        Erasure(model, (concept,), micro.policy.retain, 0)
    )
    assert record["ridge"] > 0
    assert record["relative_change"] < 0.5, "directions that no prompt spans must keep their weights"
    assert all(bool(weight.isfinite().all()) for weight in model.projections().values())


def test_the_last_token_is_the_one_before_the_end(micro: Kit) -> None:
    model = micro.model()
    ids = model.tokenizer("a photo of Borin Talvek").input_ids
    whole = model.text_states(["a photo of Borin Talvek"])[0].double()
    assert torch.equal(last_token_states(model, ["a photo of Borin Talvek"])[0], whole[len(ids) - 2])
    assert torch.equal(last_token_states(model, [""])[0], model.text_states([""])[0, 0].double())


def test_what_cannot_be_edited_is_refused(micro: Kit) -> None:
    concept = micro.policy.erase[0]
    with pytest.raises(UsageError, match="needs a guide"):
        Uce(UceOptions(guide=None)).erase(
            Erasure(micro.model(), (concept.model_copy(update={"mapping": None}),), (), 0)
        )
    with pytest.raises(UsageError, match="nothing would be erased"):
        Uce(UceOptions(guide=concept.name)).erase(Erasure(micro.model(), (concept,), (), 0))
