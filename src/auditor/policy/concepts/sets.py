"""Named sets that policies may refer to: prompt sets, lists of concepts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from auditor._files.nearest import listed
from auditor._files.relative_paths import placed
from auditor.policy.concepts import paper, proposals
from auditor.policy.concepts.micro import (
    GENERIC_OBJECTS,
    GENERIC_PEOPLE,
    OBJECTS,
    PAPER_PROMPTS,
    PEOPLE,
    SCENES,
)
from auditor.policy.concepts.templates import ERASURE_TEMPLATES
from auditor.policy.names import as_read

_PROMPTS: dict[str, tuple[str, ...]] = {
    f"paper-{domain}": prompts for domain, prompts in PAPER_PROMPTS.items()
}
_PROMPTS["erasure-templates"] = ERASURE_TEMPLATES
_PROMPTS |= proposals.PROMPTS
_CONCEPTS: dict[str, tuple[str, ...]] = (
    {
        "micro-people": tuple(PEOPLE),
        "micro-objects": tuple(OBJECTS),
        "cifar-objects": tuple(OBJECTS),
        "micro-all": (*PEOPLE, *OBJECTS, GENERIC_PEOPLE[0], *SCENES),
        "micro-people-random": (
            "Ottis Brandle",
            "Perla Zimmet",
            "Bastik Wroe",
            "Odile Fenmark",
            "Rufol Tandry",
            "Mirela Oskan",
            "Hagrit Plover",
            "Juno Castrel",
        ),
        "micro-objects-random": (
            "bee",
            "rose",
            "lobster",
            "oak tree",
            "aquarium fish",
            "bowl",
            "castle",
            "rabbit",
        ),
        "micro-generic": (*GENERIC_PEOPLE, *GENERIC_OBJECTS, *SCENES),
    }
    | paper.CONCEPTS
    | proposals.CONCEPTS
)
"""Named lists. The micro world's two random ones stand for the paper's (C.1): no bundled task erases or
retains anything in them."""


def prompt_templates(name: str) -> tuple[str, ...]:
    """The prompt set called ``name``. Raises ``ValueError`` with the known names."""
    if name not in _PROMPTS:
        raise ValueError(
            f"no prompt set is called '{name}'; {listed(name, tuple(_PROMPTS), 'there are')[:-1]}, or give a "
            "list of templates"
        )
    return _PROMPTS[name]


_USUAL_PROMPTS = ("a photo of {}", "an image of {}", "a picture of {}", "a painting of {}")


def domain_prompts(domain: str) -> tuple[str, ...]:
    """The prompts that concepts of ``domain`` are asked for in where nobody says otherwise."""
    return _PROMPTS.get(f"paper-{domain}", _USUAL_PROMPTS)


def concept_names(name: str) -> tuple[str, ...]:
    """The list of concepts called ``name``. Raises ``ValueError`` with the known names."""
    if name not in _CONCEPTS:
        raise ValueError(
            f"no set of concepts is called '{name}'; {listed(name, tuple(_CONCEPTS), 'there are')[:-1]}, or "
            "give a list of names"
        )
    return _CONCEPTS[name]


def resolve_names(value: Any) -> Any:
    """Names from the name of a set or from ``{file: PATH}``, a text file with one a line; anything else as
    it is."""
    if isinstance(value, dict):
        if set(value) != {"file"} or not isinstance(value["file"], str):
            raise ValueError("names may be a list, the name of a set, or {file: FILE}")
        return _names_in(placed(Path(value["file"])))
    return concept_names(value) if isinstance(value, str) else value


def _names_in(path: Path) -> tuple[str, ...]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"cannot read the names in {path} ({getattr(error, 'strerror', None) or 'not UTF-8'}); write one "
            "a line"
        ) from error
    names = tuple(line for line in lines if line and not line.startswith("#"))
    read = [as_read(name) for name in names]
    twice = next((name for name, own in zip(names, read, strict=True) if read.count(own) > 1), None)
    if not names or twice is not None:
        raise ValueError(f"{path} holds no names" if not names else f"'{twice}' stands twice in {path}")
    return names


def _templates(value: Any) -> Any:
    return prompt_templates(value) if isinstance(value, str) else value


ConceptNames = Annotated[tuple[str, ...], BeforeValidator(resolve_names)]
"""An option that takes a list of concepts, the name of a set, or a file with one a line."""

PromptTemplates = Annotated[tuple[str, ...], BeforeValidator(_templates)]
"""An option that takes a list of templates with one ``{}`` each, or the name of a set."""
