"""UCE: unified concept editing (Gandikota, Orgad, Belinkov, Materzynska & Bau 2024, arXiv:2308.14761).

Keys and values of every cross-attention get the closed-form solution of its equation: what the concept's last
token meant, the guide's last token means from then on, and what is to be preserved keeps its meaning. All
layers share one right factor, as MACE's refinement does, and the solver is the same.

``push`` adds a second solution of the same equation, ours and not the paper's: over *all* tokens e of the
concept's name in many templates, with W g + push (W g - W e) instead of the guide's W g as the target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from auditor.errors import UsageError
from auditor.plugin.contracts import Eraser, Erasure, OptionsModel
from auditor.policy import as_read
from auditor.policy.concepts.sets import ConceptNames, PromptTemplates
from auditor.policy.concepts.templates import ERASURE_TEMPLATES

if TYPE_CHECKING:
    from torch import Tensor

    from auditor._diffusion.closed_form import Solution
    from auditor._diffusion.model import DiffusionModel
    from auditor.policy import Concept

_VARIANTS = ("{}", "image of {}", "photo of {}", "portrait of {}", "picture of {}", "painting of {}")


class UceOptions(OptionsModel):
    """Defaults are those of the authors' released script."""

    guide: str | None = ""
    """What the concept is edited to; empty: nothing (the start token); null: the concept's mapping in the
    policy."""
    lambda_identity: float = Field(default=0.5, gt=0)
    """Weight of |W' - W|^2, which keeps the system solvable."""
    erase_scale: float = Field(default=1.0, gt=0)
    """Weight of the edit."""
    preserve_scale: float = Field(default=1.0, ge=0)
    """Weight of what is preserved."""
    preserve: ConceptNames = ()
    """Concepts to preserve, or a named set; the retained ones of the policy are always among them."""
    variants: bool = False
    """Edit five phrases with the concept in them as well as its bare name."""
    push: float = Field(default=0.0, ge=0)
    """How far past the guide a second edit pushes all tokens of the concept's name, in distances from the
    concept to the guide; 0: there is no second edit."""
    push_templates: PromptTemplates = ERASURE_TEMPLATES
    """Templates in which the second edit reads the names of the concept and of what is preserved."""
    push_hold: float = Field(default=1.0, ge=0)
    """Weight of what the second edit preserves: all tokens of the preserved names."""


class Uce(Eraser):
    """Edits the concept's last token to the guide's in closed form: no images, no training."""

    name = "uce"
    summary = "unified concept editing: a closed form on cross-attention, no training"
    source = "Gandikota et al. 2024, arXiv:2308.14761"
    Options: ClassVar[type[OptionsModel]] = UceOptions

    def mapped_to(self, concept: Concept) -> str:
        """The guide, or the concept's mapping."""
        options: UceOptions = self.options
        return super().mapped_to(concept) if options.guide is None else options.guide

    def erase(self, erasure: Erasure) -> dict[str, Any]:
        """Edit keys and values of every cross-attention in place; every other weight stays bit for bit."""
        import torch

        options: UceOptions = self.options
        model = erasure.model
        projections = model.projections()
        if not projections:
            raise UsageError("UCE edits cross-attention, and this model has none.")
        guides = [(concept.name, self._guide(concept)) for concept in erasure.concepts]
        erased = {as_read(name) for concept in erasure.concepts for name in (concept.name, *concept.synonyms)}
        names = {as_read(name): name for name in (*options.preserve, *(kept.name for kept in erasure.retain))}
        kept = [name for name in names.values() if as_read(name) not in erased]
        edits = [self._edit(model, guides, kept)]
        if options.push:
            edits.append(self._push(model, guides, kept))
        factor = edits[0].factor if len(edits) == 1 else edits[0].factor @ edits[1].factor
        change = size = 0.0
        with torch.no_grad():
            for weight in projections.values():
                before = weight.double().cpu()
                after = before @ factor
                change, size = (
                    change + float((after - before).square().sum()),
                    size + float(before.square().sum()),
                )
                weight.copy_(after)
        erasure.on_step("edit", 1, 1)
        record: dict[str, Any] = {"condition": edits[0].condition, "ridge": edits[0].ridge}
        if options.push:
            record["push"] = {"condition": edits[1].condition, "ridge": edits[1].ridge}
        return record | {"relative_change": (change / size) ** 0.5, "preserved": len(kept)}

    def _guide(self, concept: Concept) -> str:
        """What ``concept`` is edited to. Raises :class:`UsageError` where that is nothing that can be."""
        options: UceOptions = self.options
        guide = concept.mapping if options.guide is None else options.guide
        if guide is None:
            raise UsageError(
                f"UCE needs a guide for '{concept.name}': give the option 'guide', or a mapping in the "
                "policy."
            )
        if as_read(guide) in map(as_read, (concept.name, *concept.synonyms)):
            raise UsageError(f"The guide of '{concept.name}' is the concept itself: nothing would be erased.")
        return guide

    def _edit(self, model: DiffusionModel, guides: list[tuple[str, str]], kept: list[str]) -> Solution:
        """The paper's solution: last tokens to last tokens."""
        from auditor._diffusion.closed_form import cross_gram, gram, refinement

        options: UceOptions = self.options
        variants = _VARIANTS if options.variants else _VARIANTS[:1]
        old = last_token_states(model, [text.format(name) for name, _ in guides for text in variants])
        new = last_token_states(model, [_phrase(text, guide) for _, guide in guides for text in variants])
        preserved = options.preserve_scale * gram(last_token_states(model, kept) if kept else old[:0])
        scale = options.erase_scale
        return refinement(scale * cross_gram(new, old), scale * gram(old), preserved, options.lambda_identity)

    def _push(self, model: DiffusionModel, guides: list[tuple[str, str]], kept: list[str]) -> Solution:
        """The second solution, of the weights that the first one gave: all tokens of each name, in all
        templates, past the guide."""
        import torch

        from auditor._diffusion.closed_form import cross_gram, gram, refinement

        options: UceOptions = self.options
        templates = options.push_templates
        olds, targets = [], []
        for name, guide in guides:
            own = name_states(model, name, templates)
            ends = last_token_states(model, [_phrase(template, guide) for template in templates])
            new = torch.cat([end.expand_as(old) for end, old in zip(ends, own, strict=True)])
            olds.append(torch.cat(own))
            targets.append(new + options.push * (new - olds[-1]))
        old, target = torch.cat(olds), torch.cat(targets)
        preserved = torch.zeros(old.shape[1], old.shape[1], dtype=torch.float64)
        for name in kept:
            preserved += options.push_hold * gram(torch.cat(name_states(model, name, templates)))
        return refinement(cross_gram(target, old), gram(old), preserved, options.lambda_identity)


def _phrase(template: str, guide: str) -> str:
    """The guide in a template; nothing at all where it is nothing."""
    return template.format(guide) if guide else ""


def last_token_states(model: DiffusionModel, texts: list[str]) -> Tensor:
    """The text encoder's state at each text's last token, (N, width), float64; the start token's where
    there is no text."""
    import torch

    states = model.text_states(texts).double().cpu()
    lengths = [
        len(model.tokenizer(text, truncation=True, max_length=states.shape[1]).input_ids) for text in texts
    ]
    return torch.stack([state[length - 2] for state, length in zip(states, lengths, strict=True)])


def name_states(model: DiffusionModel, name: str, templates: tuple[str, ...]) -> list[Tensor]:
    """The text encoder's states at all tokens of ``name`` in each template, (tokens, width) each, float64.

    Raises :class:`UsageError` where the text encoder's length cuts the name off.
    """
    from auditor.builtins.erasers.mace.prompts import marks

    texts = [template.format(name) for template in templates]
    states = model.text_states(texts).double().cpu()
    own = [
        state[marks(model, text, name, "phrase").bool().cpu()]
        for text, state in zip(texts, states, strict=True)
    ]
    model.forget_text_states()
    for text, rows in zip(texts, own, strict=True):
        if not len(rows):
            raise UsageError(
                f"'{name}' is cut off by the text encoder's length in {text!r}; give a shorter name."
            )
    return own
