"""What a prompt can name: the concepts of a policy, to erase or to keep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from auditor.policy.concepts.prompt_file import read_prompts
from auditor.policy.concepts.sets import prompt_templates, resolve_names
from auditor.policy.fields import Names, StrictModel, as_tuple
from auditor.policy.names import as_read


class Concept(StrictModel):
    """A thing a prompt can name: one to erase or one to keep."""

    name: str = Field(min_length=1)
    domain: str = Field(min_length=1)
    synonyms: Names = ()
    mapping: str | None = None
    """What the eraser maps the concept to ("a person"); used by ``auditor erase`` only."""
    prompts: Names | str
    """Templates with one ``{}`` each, the name of a set (``paper-people``, ``paper-objects``), or ``{csv:
    FILE}``: see ``promptfile``."""
    evaluation_seeds: Annotated[
        tuple[Annotated[tuple[int, ...], BeforeValidator(as_tuple)], ...], BeforeValidator(as_tuple)
    ] = ()
    """For comparison runs only: each prompt's image seeds, as ``{csv: FILE}`` brings them. Such a run
    cannot PASS."""

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, value: Any) -> Any:
        prompts = value.get("prompts") if isinstance(value, dict) else None
        if not isinstance(prompts, dict):
            return value
        if set(prompts) != {"csv"} or not isinstance(prompts["csv"], str):
            raise ValueError("'prompts' may be a list, the name of a set, or {csv: FILE}")
        templates, seeds = read_prompts(Path(prompts["csv"]), str(value.get("name")))
        return value | {"prompts": templates, "evaluation_seeds": seeds}

    @model_serializer(mode="wrap")
    def _without_empty_seeds(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Policies without seeds of their own keep the digest, and so the images, that they had before
        there were any."""
        found: dict[str, Any] = dump(self)
        if not self.evaluation_seeds:
            found.pop("evaluation_seeds", None)
        return found

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if self.evaluation_seeds and (
            len(self.evaluation_seeds) != len(self.prompts) or not all(self.evaluation_seeds)
        ):
            raise ValueError("'evaluation_seeds' needs a list of seeds for each prompt")
        if any(
            len(set(each)) < len(each) or min(each) < 0 or max(each) >= 2**63
            for each in self.evaluation_seeds
        ):
            raise ValueError("'evaluation_seeds' are whole numbers from 0, each once a prompt")
        return self

    @field_validator("name", "synonyms")
    @classmethod
    def _readable(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for name in (value,) if isinstance(value, str) else value:
            if not as_read(name):
                raise ValueError(f"{name!r} holds nothing that a text encoder reads")
        return value.strip() if isinstance(value, str) else tuple(name.strip() for name in value)

    @field_validator("prompts")
    @classmethod
    def _resolve(cls, value: tuple[str, ...] | str) -> tuple[str, ...]:
        templates = prompt_templates(value) if isinstance(value, str) else value
        if not templates:
            raise ValueError("at least one prompt is needed")
        for template in templates:
            if template.count("{}") != 1 or template.count("{") + template.count("}") != 2:
                raise ValueError(
                    f"the prompt {template!r} needs exactly one {{}} where the concept's name goes, and no "
                    "other brace"
                )
        if len(set(templates)) != len(templates):
            raise ValueError("a prompt stands twice")
        return templates

    @property
    def templates(self) -> tuple[str, ...]:
        """The prompt templates, in the policy's order."""
        assert not isinstance(self.prompts, str)
        return self.prompts


def expanded(value: Any) -> Any:
    """Entries with ``names`` (a list, a set's name, or ``{file: FILE}``) become one concept a name."""
    if not isinstance(value, list | tuple):
        return value
    concepts: list[Any] = []
    for entry in value:
        if not isinstance(entry, dict) or "names" not in entry:
            concepts.append(entry)
            continue
        if "name" in entry:
            raise ValueError("a concept has either 'name' or 'names'")
        names = resolve_names(entry["names"])
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise ValueError("'names' may be a list, the name of a set, or {file: FILE}")
        if not names:
            raise ValueError("'names' is empty: it would ask for nothing")
        rest = {key: part for key, part in entry.items() if key != "names"}
        concepts += [rest | {"name": name} for name in names]
    return tuple(concepts)


Concepts = Annotated[tuple[Concept, ...], BeforeValidator(expanded)]
