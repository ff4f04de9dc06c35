"""Named sets that policies may refer to: prompt sets, lists of concepts, bundled policies."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from auditor.microworld.concepts import GENERIC_OBJECTS, GENERIC_PEOPLE, OBJECTS, PAPER_PROMPTS, PEOPLE, SCENES
from auditor.templates import ERASURE_TEMPLATES

_PROMPTS: dict[str, tuple[str, ...]] = {f"paper-{domain}": prompts for domain, prompts in PAPER_PROMPTS.items()}
_PROMPTS["erasure-templates"] = ERASURE_TEMPLATES
_CONCEPTS: dict[str, tuple[str, ...]] = {
    "micro-people": tuple(PEOPLE),
    "micro-objects": tuple(OBJECTS),
    "cifar-objects": tuple(OBJECTS),
    "micro-all": (*PEOPLE, *OBJECTS, GENERIC_PEOPLE[0], *SCENES),
    "micro-generic": (*GENERIC_PEOPLE, *GENERIC_OBJECTS, *SCENES),
}


def prompt_templates(name: str) -> tuple[str, ...]:
    """The prompt set called ``name``. Raises ``ValueError`` with the known names."""
    if name not in _PROMPTS:
        raise ValueError(f"no prompt set is called '{name}'; there are {', '.join(_PROMPTS)}, or give a list of templates")
    return _PROMPTS[name]


def concept_names(name: str) -> tuple[str, ...]:
    """The list of concepts called ``name``. Raises ``ValueError`` with the known names."""
    if name not in _CONCEPTS:
        raise ValueError(f"no set of concepts is called '{name}'; there are {', '.join(_CONCEPTS)}, or give a list of names")
    return _CONCEPTS[name]


def bundled_policy(name: str) -> Path | None:
    """The path of a policy that comes with the package, by its name without ``.yaml``."""
    file = Path(str(resources.files("auditor") / "policies" / f"{name}.yaml"))
    return file if file.exists() else None


def _names(value: Any) -> Any:
    return concept_names(value) if isinstance(value, str) else value


def _templates(value: Any) -> Any:
    return prompt_templates(value) if isinstance(value, str) else value


ConceptNames = Annotated[tuple[str, ...], BeforeValidator(_names)]
"""An option that takes a list of concepts or the name of a set."""

PromptTemplates = Annotated[tuple[str, ...], BeforeValidator(_templates)]
"""An option that takes a list of templates with one ``{}`` each, or the name of a set."""
