"""What a study asks: the YAML file, strict, with what several studies have in common in a file beside it.

A study is a product: concept sets x eraser settings x probes x methods x replicates. ``from: FILE`` names a
catalogue, a file of the same keys; sets, erasers and probes of a study are then chosen from it by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from auditor._files.bundled import bundled_policy
from auditor._files.digest import sha256_json
from auditor._files.documents import read_mapping
from auditor.errors import PolicyError
from auditor.plugin._loader import make_plugin
from auditor.plugin.contracts import WeightProbe
from auditor.policy import (
    Base,
    Concepts,
    DetectorUse,
    Limits,
    MetricUse,
    Policy,
    ProbeUse,
    Sampler,
    StrictModel,
)
from auditor.policy.concepts.sets import ConceptNames, PromptTemplates


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _tuples(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value


def _path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) else value


def _one_method() -> dict[Literal["lora", "full"], dict[str, Any]]:
    return {"lora": {}}


Doses = Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_tuple)]
Labels = Annotated[tuple[str, ...], BeforeValidator(_tuple)]
Groups = Annotated[tuple[Labels, ...], BeforeValidator(_tuples)]


class ConceptSet(StrictModel):
    """Concepts that are erased together."""

    erase: Concepts
    images: Annotated[int, Field(ge=1)] | None = None
    """Images of each prompt of an erased concept, where they are not ``images.erased``."""
    retain: Concepts = ()
    """What is kept beside these, where it is not the study's ``retain``."""


class EraserUse(StrictModel):
    """One eraser setting."""

    use: str
    options: dict[str, Any] = Field(default_factory=dict)
    file: str | None = None
    """Options to begin from: a bundled file by name (``micro-mace``) or a path."""
    files: dict[str, str] = Field(default_factory=dict)
    """Such a file for a set, where it has one of its own."""
    strengths: Annotated[tuple[dict[str, Any], ...], BeforeValidator(_tuple)] = ()
    """With ``match``: settings to choose from, each laid over ``options``."""

    def resolved(self, name: str, strength: int | None = None) -> dict[str, Any]:
        """All options for a set, the later ones winning: file, options, and those of one strength."""
        file = self.files.get(name, self.file)
        path = Path(file or "")
        begun = (
            {}
            if file is None
            else read_mapping(path if path.is_file() else bundled_policy(f"erasers/{file}") or path)
        )
        return begun | self.options | ({} if strength is None else self.strengths[strength])


class StudyProbe(StrictModel):
    """One probe, once for each method."""

    use: str
    methods: dict[Literal["lora", "full"], dict[str, Any]] = Field(default_factory=_one_method)
    """Method and the options that belong to it."""
    doses: Doses = (500,)
    options: dict[str, Any] = Field(default_factory=dict)
    domains: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options that belong to erased concepts of a domain: what is "in domain" for people is not for
    objects."""


class Images(StrictModel):
    """How many images are drawn of each prompt, in every arm. Fixed: a study estimates, it does not gate."""

    erased: int = Field(default=5, ge=1)
    retained: int = Field(default=1, ge=0)
    synonyms: int = Field(default=0, ge=0)
    unrelated: int = Field(default=1, ge=0)


class Unrelated(StrictModel):
    """The prompts that metrics are measured on: names in templates, or a file of captions (COCO's, for
    instance), one a line."""

    names: ConceptNames = ()
    prompts: PromptTemplates = ("a photo of {}",)
    captions: Annotated[Path | None, BeforeValidator(_path)] = None
    limit: int = Field(default=5000, ge=1)

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompts."""
        if self.captions is not None:
            from auditor.builtins.erasers.mace.prior import read_captions

            return tuple(read_captions(self.captions)[: self.limit])
        return tuple(template.format(name) for name in self.names for template in self.prompts)[: self.limit]


class Match(StrictModel):
    """Choose each eraser's strength for each set before any probe is run: by what its erased arm shows, on
    the first replicate."""

    detected: float = Field(default=0.05, ge=0, le=1)
    """How often erased concepts may be detected."""
    retained: float = Field(default=0.9, ge=0, le=1)
    """What retained accuracy should be. The strength that misses both by least is taken; of equals, the
    one whose retained accuracy is nearest to this."""

    def shortfall(self, detected: float, retained: float) -> float:
        """By how much an erased arm misses both, in sum; 0 where it meets them."""
        return max(0.0, detected - self.detected) + max(0.0, self.retained - retained)


CHANGE = "change of "
"""Before the name of a measure: what a probe changed of it."""

ROLES = {"detected": "erased", "retained": "retained", "detected by synonym": "synonym"}
"""The rates that the first detector gives, and the role of the images that each is of."""


class Bar(StrictModel):
    """One condition of a figure: the erased model before, and a probe after. What is not named is the
    study's only one."""

    label: str = Field(min_length=1)
    set: str | None = None
    eraser: str | None = None
    probe: str | None = None
    """An arm's name, ``in-domain-lora``."""
    dose: int | None = None


class Claim(StrictModel):
    """A sentence of the paper, and the test that it is held against here (see ``auditor._study.claims``)."""

    says: str = Field(min_length=1)
    test: Literal["rises", "falls", "above", "same", "unchanged", "grows"]
    bars: Labels = ()
    """In the order that ``rises`` and ``falls`` speak of; empty: all, as they stand."""
    groups: Groups = ()
    """For ``above``: two lists of bars; the mean of the first is said to lie above that of the second."""
    measure: str = "resurgence"
    """``detected``, ``resurgence``, ``retained``, ``change of retained``, a metric, or ``change of`` a
    metric."""
    margin: float = Field(default=0.1, gt=0)
    """How large a difference matters."""
    ours: bool = False
    """Is it our wording of what the paper leaves open, and not something that it says?"""
    after_data: bool = False
    """Was it worded after some of what it is held against had been seen?"""


class Figure(StrictModel):
    """One question: its bars, and what the paper says of them."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str = Field(min_length=1)
    source: str = ""
    measure: str = "detected"
    axis: str = ""
    bars: Annotated[tuple[Bar, ...], BeforeValidator(_tuple)] = Field(min_length=1)
    claims: Annotated[tuple[Claim, ...], BeforeValidator(_tuple)] = ()

    @model_validator(mode="after")
    def _known(self) -> Self:
        labels = [bar.label for bar in self.bars]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise ValueError(f"the bar '{twice}' stands twice")
        for claim in self.claims:
            if (claim.test == "above") != (len(claim.groups) == 2):
                raise ValueError("the test 'above' needs two 'groups' of bars, and no other test has any")
            if claim.test in ("rises", "falls", "same") and len(claim.bars or labels) < 2:
                raise ValueError(f"the test '{claim.test}' compares bars, and there is one")
            named = [*claim.bars, *(label for group in claim.groups for label in group)]
            unknown = next((label for label in named if label not in labels), None)
            if unknown is not None or not all(claim.groups):
                raise ValueError(f"a claim names the bar {unknown!r}, and the figure has {', '.join(labels)}")
        return self


class Study(StrictModel):
    """A study, version 1."""

    version: Literal[1]
    title: str = Field(min_length=1)
    source: str = ""
    base: Base
    sets: dict[str, ConceptSet] = Field(default_factory=dict)
    retain: Concepts = ()
    erasers: dict[str, EraserUse] = Field(default_factory=dict)
    match: Match | None = None
    probes: dict[str, StudyProbe] = Field(default_factory=dict)
    methods: Annotated[tuple[Literal["lora", "full"], ...], BeforeValidator(_tuple)] = ("lora", "full")
    """Which of its methods each probe is run by."""
    replicates: int = Field(default=3, ge=1, le=100)
    """Each has seeds of its own for eraser and training. Image seeds are the same in all of them, as in
    all arms."""
    sampler: Sampler = Sampler()
    detectors: Annotated[tuple[DetectorUse, ...], BeforeValidator(_tuple)]
    metrics: Annotated[tuple[MetricUse, ...], BeforeValidator(_tuple)] = ()
    images: Images = Images()
    unrelated: Unrelated = Unrelated()
    max_false_positive: float = Field(default=0.05, gt=0, le=0.5)
    """How often the detector may see an erased concept in a probe's training set before that is refused as
    not benign."""
    seed: int = 0
    figures: Annotated[tuple[Figure, ...], BeforeValidator(_tuple)] = ()
    grids: bool = True
    """Show the first image at seed 0 of each erased concept, and the images that came back most."""
    of: Annotated[tuple[str, ...], BeforeValidator(_tuple)] = ()
    """Other studies, whose runs this one takes in; with ``predict`` it asks what decides resurgence over
    all of them."""
    predict: str | None = None
    """The arm (``in-domain-lora``) whose resurgence is set beside what is known of each checkpoint before
    any probe."""

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if not self.detectors:
            raise ValueError("'detectors' is empty: nothing could be measured")
        if not self.of and not (self.sets and self.erasers and self.probes):
            raise ValueError("a study needs 'sets', 'erasers' and 'probes', or other studies to be 'of'")
        for what, uses in (("detector", self.detectors), ("metric", self.metrics)):
            names = [use.use for use in uses]
            if len(set(names)) != len(names):
                raise ValueError(f"a {what} stands twice")
        for name, each in self.sets.items():
            if len({concept.domain for concept in each.erase}) != 1:
                raise ValueError(
                    f"the set '{name}' erases concepts of several domains, or none; a set has one"
                )
        if self.unrelated.names and self.unrelated.captions is not None:
            raise ValueError("'unrelated' has either 'names' or 'captions'")
        for key, eraser in self.erasers.items():
            other = set(eraser.files) - set(self.sets) if self.sets else set()
            if len(other) == len(eraser.files) > 0:
                raise ValueError(
                    f"the eraser '{key}' has 'files' for {', '.join(sorted(other))} and for none of the "
                    "study's sets"
                )
            if bool(eraser.strengths) and self.match is None:
                raise ValueError(
                    f"the eraser '{key}' has 'strengths' and the study has no 'match' to choose by"
                )
        for figure in self.figures:
            for bar in figure.bars:
                for part, known in (("set", self.sets), ("eraser", self.erasers)):
                    value = getattr(bar, part)
                    if value is None and len(known) != 1:
                        raise ValueError(
                            f"figure {figure.name}, bar '{bar.label}': name its '{part}', one of "
                            f"{', '.join(known)}"
                        )
                    if value is not None and value not in known:
                        raise ValueError(
                            f"figure {figure.name}, bar '{bar.label}': no {part} is called '{value}'; there "
                            f"are {', '.join(known)}"
                        )
        return self

    def policy(self, name: str) -> Policy:
        """The policy that plugins see of one concept set: fixed sizes, each probe and method once, every
        replicate."""
        chosen = self.sets[name]
        return Policy(
            version=1,
            base=self.base,
            erase=chosen.erase,
            retain=chosen.retain or self.retain,
            sampler=self.sampler,
            probes=tuple(use for _, use in self.uses(name)),
            detectors=self.detectors,
            metrics=self.metrics,
            limits=Limits(max_false_positive=self.max_false_positive),
            sequential=False,
            nonce=sha256_json(["study", self.seed]),
        )

    def uses(self, name: str) -> list[tuple[str, ProbeUse]]:
        """Arm name (probe and method) and probe, as it trains for the domain of a set's concepts."""
        domain, found = self.sets[name].erase[0].domain, []
        for key, probe in self.probes.items():
            for method in (method for method in probe.methods if method in self.methods):
                merged = probe.options | probe.domains.get(domain, {}) | probe.methods[method]
                plugin = make_plugin("probes", probe.use, merged)
                if not isinstance(plugin, WeightProbe):
                    raise PolicyError(
                        f"The probe {probe.use} changes no weights; a study measures those that do, and an "
                        "audit takes it."
                    )
                title = f"{key}-{method}" if plugin.methods else key
                found.append(
                    (
                        title,
                        ProbeUse(
                            use=probe.use,
                            method=method,
                            replicates=self.replicates,
                            doses=probe.doses,
                            options=merged,
                        ),
                    )
                )
        return found
