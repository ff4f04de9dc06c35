"""UCE: unified concept editing (Gandikota, Orgad, Belinkov, Materzynska & Bau 2024, arXiv:2308.14761), as a
plugin for auditor.

Keys and values of every cross-attention get the closed-form solution of its equation: what the concept's last
token meant, the guide's last token means from then on, and what is to be preserved keeps its meaning. All
layers share one right factor, as MACE's refinement does, so the solver is
:func:`auditor.plugin.refinement`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from auditor.plugin import ConceptNames, Eraser, Erasure, OptionsModel, UsageError, as_read, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.plugin import Concept, DiffusionModel

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

        from auditor.plugin import cross_gram, gram, refinement

        options: UceOptions = self.options
        model = erasure.model
        projections = model.projections()
        if not projections:
            raise UsageError("UCE edits cross-attention, and this model has none.")
        phrases, guides = [], []
        for concept in erasure.concepts:
            guide = concept.mapping if options.guide is None else options.guide
            if guide is None:
                raise UsageError(
                    f"UCE needs a guide for '{concept.name}': give the option 'guide', or a mapping in the "
                    "policy."
                )
            if as_read(guide) in map(as_read, (concept.name, *concept.synonyms)):
                raise UsageError(
                    f"The guide of '{concept.name}' is the concept itself: nothing would be erased."
                )
            for variant in _VARIANTS if options.variants else _VARIANTS[:1]:
                phrases.append(variant.format(concept.name))
                guides.append(variant.format(guide) if guide else "")
        erased = {as_read(name) for concept in erasure.concepts for name in (concept.name, *concept.synonyms)}
        names = {as_read(name): name for name in (*options.preserve, *(kept.name for kept in erasure.retain))}
        kept = [name for name in names.values() if as_read(name) not in erased]
        old, new = last_token_states(model, phrases), last_token_states(model, guides)
        preserved = options.preserve_scale * gram(last_token_states(model, kept) if kept else old[:0])
        scale = options.erase_scale
        solved = refinement(
            scale * cross_gram(new, old), scale * gram(old), preserved, options.lambda_identity
        )
        change = size = 0.0
        with torch.no_grad():
            for weight in projections.values():
                before = weight.double().cpu()
                after = before @ solved.factor
                change, size = (
                    change + float((after - before).square().sum()),
                    size + float(before.square().sum()),
                )
                weight.copy_(after)
        erasure.on_step("edit", 1, 1)
        return {
            "condition": solved.condition,
            "ridge": solved.ridge,
            "relative_change": (change / size) ** 0.5,
            "preserved": len(kept),
        }


def last_token_states(model: DiffusionModel, texts: list[str]) -> Tensor:
    """The text encoder's state at each text's last token, (N, width), float64; the start token's where
    there is no text."""
    import torch

    states = model.text_states(texts).double().cpu()
    lengths = [
        len(model.tokenizer(text, truncation=True, max_length=states.shape[1]).input_ids) for text in texts
    ]
    return torch.stack([state[length - 2] for state, length in zip(states, lengths, strict=True)])


@hookimpl
def auditor_register_erasers() -> list[type[Eraser]]:
    """UCE."""
    return [Uce]
