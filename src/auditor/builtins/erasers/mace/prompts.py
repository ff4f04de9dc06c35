"""What MACE takes from a concept's prompts: which tokens are its own, and its Gram matrices (Lu et al.
2024, Eq. 2 and 7)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from auditor._diffusion.closed_form import cross_gram, gram
from auditor._diffusion.denoising import sent
from auditor._diffusion.model import DiffusionModel
from auditor._files.digest import sha256_json
from auditor.builtins.erasers.mace.align import align_tokens, phrase_positions
from auditor.builtins.erasers.mace.kept import ConceptFolder
from auditor.errors import UsageError
from auditor.policy import Concept, as_read
from auditor.policy.concepts.templates import ERASURE_TEMPLATES


def check_concept(concept: Concept, model: DiffusionModel) -> None:
    """Raise :class:`UsageError` where a concept has no mapping, is its own, or does not fit into the text
    encoder's length."""
    if concept.mapping is None:
        raise UsageError(
            f"MACE needs a mapping concept for '{concept.name}'; give 'mapping' in the policy (\"a person\")."
        )
    if as_read(concept.mapping) in map(as_read, (concept.name, *concept.synonyms)):
        raise UsageError(f"The mapping of '{concept.name}' is the concept itself: nothing would be erased.")
    for phrase in (concept.name, concept.mapping):
        if not model.tokenizer(phrase).input_ids[1:-1]:
            raise UsageError(f"{phrase!r} has no token in this model's vocabulary; give another name.")
        for template in ERASURE_TEMPLATES:
            if not bool(marks(model, template.format(phrase), phrase, "phrase").any()):
                raise UsageError(
                    f"'{phrase}' is cut off by the text encoder's length in {template.format(phrase)!r}; "
                    "give a shorter name."
                )


def marks(model: DiffusionModel, prompt: str, phrase: str, mark: str) -> Tensor:
    """1 where a token of ``prompt`` belongs to ``phrase``, and with "end" at its end, with "padding" at
    its end and after it; (tokens,)."""
    ids = model.family.token_ids(model.parts, [prompt])[0]  # on the CPU: a GPU would be waited for four times
    marked = torch.zeros(ids.shape)
    marked[phrase_positions(ids.tolist(), model.tokenizer(phrase).input_ids[1:-1])] = 1
    end = int((ids == model.tokenizer.eos_token_id).int().argmax())
    if mark != "phrase":
        marked[end : end + 1 if mark == "end" else None] = 1
    return sent(marked, model.device)


def concept_grams(
    model: DiffusionModel, concept: Concept, place: ConceptFolder, reuse: Path | None
) -> dict[str, Tensor]:
    """The concept's three Gram matrices, read here or in an earlier erasure's folder, or made; and
    written."""
    made_from = {
        "base": model.digest,
        "concept": concept.name,
        "mapping": concept.mapping,
        "templates": sha256_json(ERASURE_TEMPLATES),
    }
    for each in (place, ConceptFolder(reuse, concept.name) if reuse is not None else place):
        found = each.load("grams")
        if found is not None and found[1] == made_from:
            if each is not place:
                place.save("grams", *found)
            return found[0]
    prompts, mappings = (
        [template.format(phrase) for template in ERASURE_TEMPLATES]
        for phrase in (concept.name, concept.mapping)
    )
    states, targets = model.text_states(prompts).cpu(), model.text_states(mappings).cpu()
    length, width = states.shape[1:]
    grams = {"own": gram(states.flatten(0, 1)), "mapping": torch.zeros(width, width, dtype=torch.float64)}
    grams["aligned"] = torch.zeros_like(grams["mapping"])
    for text, target, old, new in zip(prompts, mappings, states, targets, strict=True):
        old_ids, new_ids = (
            model.tokenizer(each, truncation=True, max_length=length).input_ids for each in (text, target)
        )
        old_positions, new_positions = align_tokens(old_ids, new_ids, length)
        grams["mapping"] += cross_gram(new[new_positions], old[old_positions])
        grams["aligned"] += gram(old[old_positions])
    model.forget_text_states()  # of a hundred concepts they would take more than the model
    place.save("grams", grams, made_from)
    return grams
