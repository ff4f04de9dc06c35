"""Probes that change no weight: another user's sampler, and other words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from auditor._files.tables import read_table
from auditor.errors import UsageError
from auditor.plugin.contracts import OptionsModel, PromptProbe, SamplingProbe
from auditor.policy import Concept, Sampler, as_read
from auditor.policy.concepts.sets import PromptTemplates


class SamplingOptions(OptionsModel):
    """What is another than in the policy's ``sampler``; what is left out stays."""

    scheduler: Literal["ddim", "dpm-solver++"] | None = None
    """Which sampler."""
    steps: int | None = Field(default=None, ge=1, le=1000)
    """How many denoising steps."""
    guidance: float | None = Field(default=None, ge=1, le=50)
    """How strong the classifier-free guidance is."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    """What the denoiser computes in."""


class Sampling(SamplingProbe):
    """The erased model drawn with another scheduler, number of steps, guidance or precision."""

    name = "sampling"
    summary = "another sampler: scheduler, steps, guidance, precision"
    Options: ClassVar[type[OptionsModel]] = SamplingOptions

    @property
    def title(self) -> str:
        """With what is another."""
        options: SamplingOptions = self.options
        parts = [
            (options.scheduler or "").replace("+", ""),
            f"{options.steps}-steps" if options.steps else "",
            f"guidance-{options.guidance:g}" if options.guidance else "",
            options.dtype or "",
        ]
        return "-".join([self.name, *(part for part in parts if part)])

    def sampler(self, sampler: Sampler) -> Sampler:
        """The policy's, with what is asked for."""
        changed = {key: value for key, value in self.options if value is not None}
        return sampler.model_copy(update=changed)


class PromptOptions(OptionsModel):
    """Other words for the erased concepts: for all of them, for one, or from a file."""

    templates: PromptTemplates = ()
    """Templates with one ``{}`` each for the concept's name, or a named set: asked of every concept."""
    synonyms: tuple[str, ...] = ()
    """Other names, each put into every prompt of the policy. For concepts of their own see ``prompts``."""
    prompts: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Whole prompts by concept: paraphrases, descriptions that do not name it."""
    csv: Path | None = None
    """A file with the columns ``concept`` and ``prompt``; rows of concepts that are not erased are left
    out."""
    label: str = Field(default="", pattern=r"^[\w.-]*$")
    """A word for reports, where a policy has several such probes."""

    @model_validator(mode="after")
    def _something(self) -> PromptOptions:
        if not (self.templates or self.synonyms or self.prompts or self.csv):
            raise ValueError("give 'templates', 'synonyms', 'prompts' or 'csv'")
        for template in self.templates:
            if template.count("{}") != 1 or template.count("{") + template.count("}") != 2:
                raise ValueError(f"the template {template!r} needs exactly one {{}}, and no other brace")
        return self


class Prompts(PromptProbe):
    """The erased model asked in other words."""

    name = "prompts"
    summary = "other words: paraphrases, synonyms, prompts that others have found"
    Options: ClassVar[type[OptionsModel]] = PromptOptions

    @property
    def title(self) -> str:
        """With the label."""
        return f"{self.name}-{self.options.label}" if self.options.label else self.name

    def prompts(self, concept: Concept) -> Sequence[str]:
        """Those for one concept, each once as it is read."""
        options: PromptOptions = self.options
        found = [template.format(concept.name) for template in options.templates]
        found += [template.format(name) for name in options.synonyms for template in concept.templates]
        own = {as_read(name) for name in (concept.name, *concept.synonyms)}
        for name, prompts in (*options.prompts.items(), *self._rows.items()):
            found += prompts if as_read(name) in own else ()
        return list({as_read(prompt): prompt for prompt in found}.values())

    def concepts(self) -> Sequence[str]:
        """Those that ``prompts`` names. A file may hold rows of other concepts."""
        return list(self.options.prompts)

    @cached_property
    def _rows(self) -> dict[str, list[str]]:
        """The file's prompts by concept."""
        path: Path | None = self.options.csv
        if path is None:
            return {}
        try:
            table = read_table(path, ("concept", "prompt"))
        except ValueError as error:
            raise UsageError(f"{error}.") from error
        found: dict[str, list[str]] = {}
        for row in table.rows:
            if row.cells["prompt"].strip() and row.cells["concept"].strip():
                found.setdefault(row.cells["concept"], []).append(row.cells["prompt"].strip())
        return found
