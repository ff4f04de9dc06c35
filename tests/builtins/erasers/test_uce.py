"""UCE against its own equation, and the second edit against its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from auditor._erase.job import read_options
from auditor.builtins.erasers.uce import Uce, UceOptions, last_token_states, name_states
from auditor.errors import UsageError
from auditor.plugin.contracts import Erasure
from auditor.policy import load_policy
from auditor.testing.kit import Kit


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


TEMPLATES = ("a photo of {}", "{} at the sea")


def test_the_second_edit_is_the_solution_of_its_equation(micro: Kit) -> None:
    """Every token of the name in every template past the guide, every token of what is kept where it was."""
    model, concept = micro.model(), micro.policy.erase[0]
    names = model.projections()
    before = {name: weight.detach().double().clone() for name, weight in names.items()}
    Uce(UceOptions(guide=None)).erase(Erasure(model, (concept,), micro.policy.retain, 0))
    once = {name: weight.detach().double().clone() for name, weight in names.items()}
    for name, weight in names.items():
        weight.data.copy_(before[name])
    options = UceOptions(guide=None, push=0.7, push_templates=TEMPLATES, push_hold=2.0)
    record = Uce(options).erase(Erasure(model, (concept,), micro.policy.retain, 0))
    assert record["push"]["condition"] > 1 and record["push"]["ridge"] == 0
    (kept,) = micro.policy.retain
    width = model.text_encoder.config.hidden_size
    left = right = 0.5 * torch.eye(width, dtype=torch.float64)
    for template in TEMPLATES:
        (own,) = name_states(model, concept.name, (template,))
        assert len(own) == len(model.tokenizer(concept.name).input_ids) - 2 > 1
        guide = last_token_states(model, [template.format(concept.mapping)])[0]
        for token in own:
            left = left + torch.outer(guide + 0.7 * (guide - token), token)
            right = right + torch.outer(token, token)
        for token in name_states(model, kept.name, (template,))[0]:
            left, right = left + 2 * torch.outer(token, token), right + 2 * torch.outer(token, token)
    for name, weight in names.items():
        wanted = once[name] @ left @ torch.linalg.inv(right)
        assert torch.allclose(weight.double(), wanted, atol=1e-4 * float(wanted.abs().max()))


def test_the_tokens_of_a_name_are_its_own_wherever_it_stands(micro: Kit) -> None:
    model = micro.model()
    ids = model.tokenizer("a photo of Borin Talvek").input_ids
    whole = model.text_states(["a photo of Borin Talvek"])[0].double()
    (own,) = name_states(model, "Borin Talvek", ("a photo of {}",))
    assert torch.equal(own, whole[4 : len(ids) - 1])
    with pytest.raises(UsageError, match="cut off by the text encoder's length"):
        name_states(model, "Borin Talvek", ("a photo " * 60 + "of {}",))


@pytest.mark.parametrize("options", [{}, {"push": 1.0}])
def test_without_a_push_there_is_one_edit(micro: Kit, options: dict[str, Any]) -> None:
    record = Uce(UceOptions(guide=None, **options)).erase(
        Erasure(micro.model(), micro.policy.erase, micro.policy.retain, 0)
    )
    assert ("push" in record) is bool(options)


@pytest.mark.parametrize("name", ["micro-uce-ship", "micro-uce-ship-pushed"])
def test_the_ships_options_fit_their_policy(micro: Kit, name: str) -> None:
    """Each erases the ship's own states and leaves what is kept: the relative change of keys and values."""
    policy, model = load_policy("micro-object"), micro.model()
    before = {key: weight.detach().double().clone() for key, weight in model.projections().items()}
    record = Uce(UceOptions(**read_options(name, ()))).erase(Erasure(model, policy.erase, policy.retain, 0))
    assert record["preserved"] > 80 and ("push" in record) is name.endswith("pushed")
    ship = last_token_states(model, ["a photo of the ship"])[0]
    dog = last_token_states(model, ["a photo of the dog"])[0]
    for key, weight in model.projections().items():
        moved = {
            word: float((weight.double() @ state - before[key] @ state).norm() / (before[key] @ state).norm())
            for word, state in (("ship", ship), ("dog", dog))
        }
        assert moved["ship"] > 2 * moved["dog"], (key, moved)
