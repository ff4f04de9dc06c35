"""Named sets that policies may refer to: prompt sets, lists of concepts, bundled policies."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from auditor.microworld.concepts import GENERIC_OBJECTS, GENERIC_PEOPLE, OBJECTS, PAPER_PROMPTS, PEOPLE, SCENES
from auditor.templates import ERASURE_TEMPLATES

_PROMPTS: dict[str, tuple[str, ...]] = {f"paper-{domain}": prompts for domain, prompts in PAPER_PROMPTS.items()}
_PROMPTS["erasure-templates"] = ERASURE_TEMPLATES
_CONCEPTS: dict[str, tuple[str, ...]] = {
    "micro-people": tuple(PEOPLE),
    "micro-objects": tuple(OBJECTS),
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
