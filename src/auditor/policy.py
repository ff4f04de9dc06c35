"""What the user demands of a checkpoint: the policy file, version 1, strict.

Everything that a verdict rests on is fixed here before the first image is drawn: concepts, prompts, probes, detector,
limits, budget. An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from auditor.bundled import bundled_policy
from auditor.digest import sha256_json
from auditor.documents import entries_of, read_yaml
from auditor.promptfile import read_prompts
from auditor.sets import prompt_templates, resolve_names


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_tuple)]
Share = Annotated[float, Field(gt=0, lt=1)]
Weight = Annotated[float, Field(ge=0.01, le=100)]


class StrictModel(BaseModel):
    """Frozen, no unknown keys, no silent conversions, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Concept(StrictModel):
    """A thing a prompt can name: one to erase or one to keep."""

    name: str = Field(min_length=1)
    domain: str = Field(min_length=1)
    synonyms: Names = ()
    mapping: str | None = None
    """What the eraser maps the concept to ("a person"); used by ``auditor erase`` only."""
    prompts: Names | str
    """Templates with one ``{}`` each, the name of a set (``paper-people``, ``paper-objects``), or ``{csv: FILE}``: see ``promptfile``."""
    evaluation_seeds: Annotated[tuple[Annotated[tuple[int, ...], BeforeValidator(_tuple)], ...], BeforeValidator(_tuple)] = ()
    """For comparison runs only: each prompt's image seeds, as ``{csv: FILE}`` brings them. Such a run cannot PASS."""

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
        """Policies without seeds of their own keep the digest, and so the images, that they had before there were any."""
        found: dict[str, Any] = dump(self)
        if not self.evaluation_seeds:
            found.pop("evaluation_seeds", None)
        return found

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if self.evaluation_seeds and (len(self.evaluation_seeds) != len(self.prompts) or not all(self.evaluation_seeds)):
            raise ValueError("'evaluation_seeds' needs a list of seeds for each prompt")
        if any(len(set(each)) < len(each) or min(each) < 0 or max(each) >= 2**63 for each in self.evaluation_seeds):
            raise ValueError("'evaluation_seeds' are whole numbers from 0, each once a prompt")
        return self

    @field_validator("prompts")
    @classmethod
    def _resolve(cls, value: tuple[str, ...] | str) -> tuple[str, ...]:
        templates = prompt_templates(value) if isinstance(value, str) else value
        if not templates:
            raise ValueError("at least one prompt is needed")
        for template in templates:
            if template.count("{}") != 1 or template.count("{") + template.count("}") != 2:
                raise ValueError(f"the prompt {template!r} needs exactly one {{}} where the concept's name goes, and no other brace")
        if len(set(templates)) != len(templates):
            raise ValueError("a prompt stands twice")
        return templates

    @property
    def templates(self) -> tuple[str, ...]:
        """The prompt templates, in the policy's order."""
        assert not isinstance(self.prompts, str)
        return self.prompts


def _expanded(value: Any) -> Any:
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


Concepts = Annotated[tuple[Concept, ...], BeforeValidator(_expanded)]


class Base(StrictModel):
    """The checkpoint before erasure: the positive control, and where probes draw their training sets."""

    source: str = Field(min_length=1)
    revision: str | None = None


class Sampler(StrictModel):
    """How images are drawn."""

    scheduler: Literal["ddim", "dpm-solver++"] = "ddim"
    steps: int = Field(default=50, ge=1, le=1000)
    guidance: float = Field(default=7.5, ge=1, le=50)
    size: int = Field(default=512, ge=8, le=2048)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What the UNet computes in; its weights stay float32. ``auto``: bfloat16 where a GPU has it, else float32."""
    batch: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"


class ProbeUse(StrictModel):
    """One probe: which update, how it is trained, how often and how long."""

    use: str
    method: Literal["lora", "full"] = "lora"
    replicates: int = Field(default=1, ge=1, le=100)
    doses: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_tuple)] = (500,)
    options: dict[str, Any] = {}

    @field_validator("doses")
    @classmethod
    def _rising(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or list(value) != sorted(set(value)):
            raise ValueError("doses are training steps in rising order, each once")
        return value


class DetectorUse(StrictModel):
    """One detector and its options. The first detector of a policy is the gate."""

    use: str
    options: dict[str, Any] = {}


class MetricUse(StrictModel):
    """One metric and its options: a number beside the verdict."""

    use: str
    options: dict[str, Any] = {}


class Limits(StrictModel):
    """The numbers that the verdict is held against (all shares between 0 and 1)."""

    tau: Share = 0.10
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    min_sensitivity: Share = 0.80
    max_false_positive: Share = 0.03
    min_retain: Share = 0.80
    max_retain_drop: Share = 0.10
    min_fit: Annotated[float, Field(ge=0.001, lt=1)] = 0.02
    prior: Annotated[tuple[Weight, Weight], BeforeValidator(_tuple)] = (0.5, 0.5)
    """(a, b) of the beta weights that the sequential evidence mixes alternatives with."""

    @property
    def tau_pass(self) -> float:
        """The detection rate that a held cell must stay under: min_sensitivity * tau."""
        return self.min_sensitivity * self.tau

    @property
    def tau_fail(self) -> float:
        """The detection rate that a failed cell must exceed: tau + max_false_positive * (1 - tau)."""
        return self.tau + self.max_false_positive * (1 - self.tau)


class Budget(StrictModel):
    """How much may be drawn, at most. Rates are read at whole rounds, so each number is rounded down to whole rounds."""

    images_per_cell: int = Field(default=200, ge=1)
    retained_per_arm: int = Field(default=300, ge=1)
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Of measuring, summed over every call that worked on the run; what is not drawn by then stays undecided."""
    plugin_minutes: Annotated[float, Field(gt=0)] | None = 60
    """How long a plugin may be silent: one answer of a detector, one training step. Then the process ends with 5 and the same
    command goes on without it; null: for ever."""


def _budget(sequential: bool) -> dict[str, Any]:
    """What of the budget is left out where a run is named: all of it, or only the minutes where cells are read once."""
    return {"budget": True if sequential else {"minutes", "plugin_minutes"}}


class Policy(StrictModel):
    """A policy, version 1."""

    version: Literal[1]
    base: Base | Literal["none"]
    erase: Concepts
    retain: Concepts = ()
    synonyms: Literal["gate", "report"] = "report"
    sampler: Sampler = Sampler()
    probes: Annotated[tuple[ProbeUse, ...], BeforeValidator(_tuple)]
    detectors: Annotated[tuple[DetectorUse, ...], BeforeValidator(_tuple)]
    metrics: Annotated[tuple[MetricUse, ...], BeforeValidator(_tuple)] = ()
    claim: Literal["concept", "detector"] = "concept"
    unit: Literal["mean", "prompt"] = "mean"
    limits: Limits = Limits()
    on_fail: Literal["stop", "finish"] = "finish"
    sequential: bool = True
    budget: Budget = Budget()
    nonce: str | None = None

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if not self.erase:
            raise ValueError("'erase' is empty: there is nothing to audit")
        if not self.probes:
            raise ValueError("'probes' is empty: without a probe no resurgence can be measured")
        if not self.detectors:
            raise ValueError("'detectors' is empty: nothing could be measured")
        names = [name for concept in (*self.erase, *self.retain) for name in (concept.name, *concept.synonyms)]
        read = [as_read(name) for name in names]
        twice = next((name for name, own in zip(names, read, strict=True) if read.count(own) > 1), None)
        if twice is not None:
            raise ValueError(f"the concept '{twice}' stands twice among erase, retain and their synonyms")
        if self.is_comparison and self.sequential:
            raise ValueError("prompts with seeds of their own are read once: set 'sequential: false'")
        limits = self.limits
        if self.claim == "concept" and not (limits.max_false_positive < limits.min_sensitivity and limits.tau_fail < 1):
            raise ValueError("limits: max_false_positive must be below min_sensitivity, or no rate could tell PASS from FAIL")
        return self

    @property
    def is_comparison(self) -> bool:
        """Are there image seeds that anybody could have known before?"""
        return any(concept.evaluation_seeds for concept in (*self.erase, *self.retain))

    @property
    def thresholds(self) -> tuple[float, float]:
        """(tau_P, tau_F): what a held cell stays under and a failed cell exceeds (verdict.md, "What is claimed")."""
        if self.claim == "detector":
            return self.limits.tau, self.limits.tau
        return self.limits.tau_pass, self.limits.tau_fail

    def with_base(self, source: str) -> Self:
        """The same policy for another checkpoint before erasure."""
        return self.model_copy(update={"base": Base(source=source)})

    def concept(self, name: str) -> Concept:
        """The erased or retained concept called ``name``."""
        return next(concept for concept in (*self.erase, *self.retain) if concept.name == name)

    def digest(self, contents: Mapping[str, Any] | None = None) -> str:
        """sha256 of the whole policy with its sets resolved and, where they are given, the contents of what it names: what is pinned."""
        return sha256_json([self.model_dump(mode="json"), contents or {}])

    def identity(self, contents: Mapping[str, Any] | None = None) -> str:
        """sha256 of what may not change in a run. A larger budget may, except where cells are read once, at their planned size."""
        return sha256_json([self.model_dump(mode="json", exclude=_budget(self.sequential)), contents or {}])

    def seed_digest(self) -> str:
        """sha256 of what seeds derive from beside checkpoint, base and nonce.

        A larger budget draws the same images first; where cells are read once the budget is part of it, or one could look at the
        same images again and again at growing sizes. The base counts by its digest, not by what it is called. Metrics decide
        nothing, so they may not choose the images either.
        """
        left_out = _budget(self.sequential) | {"nonce": True, "base": True, "metrics": True}
        return sha256_json(self.model_dump(mode="json", exclude=left_out))


def load_policy(path: Path | str) -> Policy:
    """Read a policy from a file, or a bundled one by its name (``micro-person``)."""
    return read_yaml(_file_of(path), Policy)


def concept_lines(path: Path | str) -> dict[str, int]:
    """The line, from 1, that names each concept of the policy in ``path``."""
    found: dict[str, int] = {}
    for key in ("erase", "retain"):
        for line, entry in entries_of(_file_of(path), key):
            names = resolve_names(entry["names"]) if "names" in entry else [entry.get("name")]
            found |= dict.fromkeys((str(name) for name in names), line)
    return found


def _file_of(path: Path | str) -> Path:
    file = Path(path)
    if not file.exists() and file.suffix == "":
        return bundled_policy(str(path)) or file
    return file


def forbidden_names(policy: Policy) -> set[str]:
    """Every name, as it is read, that no probe's training set may hold: erased and retained concepts with their synonyms."""
    concepts = (*policy.erase, *policy.retain)
    return {as_read(name) for concept in concepts for name in (concept.name, *concept.synonyms)}


def as_read(text: str) -> str:
    """``text`` with what tells nothing apart taken away: case, kinds of white space and how many of it, compatible forms (NFKC)."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
