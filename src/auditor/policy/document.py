"""What the user demands of a checkpoint: the policy file, version 1, strict.

Everything that a verdict rests on is fixed here before the first image is drawn: concepts, prompts, probes,
detector, limits, budget. An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from auditor._files.digest import sha256_json
from auditor._files.nearest import hint, listed
from auditor.errors import UsageError
from auditor.policy.budget import Budget, beside_identity
from auditor.policy.concept import Concept, Concepts, expanded
from auditor.policy.concepts.prompt_file import prompt_files_of
from auditor.policy.decision import Decision, Gate
from auditor.policy.fields import Share, StrictModel, Weight, as_tuple
from auditor.policy.names import as_read, first_alike
from auditor.policy.sampler import Sampler
from auditor.policy.updates import Updates


class Base(StrictModel):
    """The checkpoint before erasure: the positive control, and where probes draw their training sets."""

    source: str = Field(min_length=1)
    revision: str | None = None

    @property
    def address(self) -> str:
        """What it is opened by: ``source``, or ``source@revision``."""
        return self.source if self.revision is None else f"{self.source}@{self.revision}"


class ProbeUse(StrictModel):
    """One probe: which update, how it is trained, how often and how long."""

    use: str
    method: Literal["lora", "full"] = "lora"
    replicates: int = Field(default=1, ge=1, le=100)
    doses: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(as_tuple)] = (500,)
    options: dict[str, Any] = {}

    @field_validator("doses")
    @classmethod
    def _rising(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or list(value) != sorted(set(value)):
            raise ValueError("doses are training steps in rising order, each once")
        return value


class DetectorUse(StrictModel):
    """One detector and its options."""

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
    prior: Annotated[tuple[Weight, Weight], BeforeValidator(as_tuple)] = (0.5, 0.5)
    """(a, b) of the beta weights that the sequential evidence mixes alternatives with."""

    @property
    def tau_pass(self) -> float:
        """The detection rate that a held cell must stay under: min_sensitivity * tau."""
        return self.min_sensitivity * self.tau

    @property
    def tau_fail(self) -> float:
        """The detection rate that a failed cell must exceed: tau + max_false_positive * (1 - tau)."""
        return self.tau + self.max_false_positive * (1 - self.tau)


class Policy(StrictModel):
    """A policy, version 1."""

    version: Literal[1]
    base: Base | Literal["none"]
    erase: Concepts
    retain: Concepts = ()
    synonyms: Literal["gate", "report"] = "report"
    sampler: Sampler = Sampler()
    probes: Annotated[tuple[ProbeUse, ...], BeforeValidator(as_tuple)] = ()
    updates: Updates | None = None
    """A population of ordinary updates, of which a PASS says how many bring a concept back at most."""
    detectors: Annotated[tuple[DetectorUse, ...], BeforeValidator(as_tuple)]
    metrics: Annotated[tuple[MetricUse, ...], BeforeValidator(as_tuple)] = ()
    gate: Gate = Gate()
    claim: Literal["concept", "detector"] = "concept"
    unit: Literal["mean", "prompt"] = "mean"
    limits: Limits = Limits()
    on_fail: Literal["stop", "finish"] = "finish"
    on_undecided: Literal["spend", "close"] = "spend"
    """What becomes of a check that is not decided yet: draw on while there is budget, or close it once a
    decision has become unlikely."""
    sequential: bool = True
    budget: Budget = Budget()
    nonce: str | None = None
    reasons: dict[str, str] = {}
    """Why something is weaker than the default, or than the policy was before, by what ``policy check`` and
    ``policy diff`` call it (``limits.tau``). It stands in reports and chooses no image."""
    _folder: Path | None = PrivateAttr(default=None)

    @model_validator(mode="wrap")
    @classmethod
    def _with_prompt_files(cls, data: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Whose a row of a prompt file is hangs on all concepts together."""
        with prompt_files_of(names_in(data) if isinstance(data, dict) else ()):
            return validate(data)

    @field_validator("reasons")
    @classmethod
    def _said(cls, value: dict[str, str]) -> dict[str, str]:
        for key, reason in value.items():
            if (head := key.split(".")[0]) not in cls.model_fields:
                raise ValueError(
                    f"there is no '{key}' in a policy; {hint(head, list(cls.model_fields), 'keys')}"
                )
            if not reason.strip():
                raise ValueError(f"the reason for '{key}' is empty")
        return value

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if not self.erase:
            raise ValueError("'erase' is empty: there is nothing to audit")
        if not self.probes and self.updates is None:
            raise ValueError(
                "'probes' is empty and there are no 'updates': without one no resurgence can be measured"
            )
        self._check_updates()
        if not self.detectors:
            raise ValueError("'detectors' is empty: nothing could be measured")
        self._check_gate()
        names = [
            name for concept in (*self.erase, *self.retain) for name in (concept.name, *concept.synonyms)
        ]
        if (alike := first_alike(names)) is not None:
            raise ValueError(_twice(*alike))
        if self.is_comparison and self.sequential:
            raise ValueError("prompts with seeds of their own are read once: set 'sequential: false'")
        limits = self.limits
        if self.claim == "concept" and not (
            limits.max_false_positive < limits.min_sensitivity and limits.tau_fail < 1
        ):
            raise ValueError(
                "limits: max_false_positive must be below min_sensitivity, or no rate could tell PASS from "
                "FAIL"
            )
        return self

    def _check_updates(self) -> None:
        if self.updates is None:
            return
        wrong = next(
            (
                sentence
                for is_wrong, sentence in (
                    (self.base == "none", "a base to draw training sets with and to compare to"),
                    (not self.retain, "concepts to keep ('retain')"),
                    (not self.sequential, "'sequential: true'"),
                    (self.unit == "prompt", "'unit: mean'"),
                    (self.updates.claim.max_drop >= 1 - self.limits.tau, "a smaller claim.max_drop"),
                )
                if is_wrong
            ),
            None,
        )
        if wrong is not None:
            raise ValueError(f"'updates' needs {wrong}")

    def _check_gate(self) -> None:
        known = [use.use for use in self.detectors]
        vote = self.gate.decision.vote
        for name in (self.gate.detector, *(vote.detectors if vote else ())):
            if name is not None and name not in known:
                raise ValueError(
                    f"gate: there is no detector '{name}'; {listed(name, known, 'there are')[:-1]}"
                )

    @model_serializer(mode="wrap")
    def _without_what_is_usual(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A policy that leaves ``gate`` or ``on_undecided`` out, or says what would hold anyway, keeps the
        digest, and so the images, that it had before there was such a key."""
        found: dict[str, Any] = dump(self)
        if self.on_undecided == "spend":
            found.pop("on_undecided", None)
        if self.gate.decision == Decision() and self.gate_detector == self.detectors[0].use:
            found.pop("gate", None)
        if not self.reasons:
            found.pop("reasons", None)
        if self.updates is None:
            found.pop("updates", None)
        return found

    def reason_for(self, key: str) -> str | None:
        """The reason that is given for ``key`` (``limits.tau``), or for the part that it is in."""
        parts = key.split(".")
        keys = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
        return next((self.reasons[each] for each in keys if each in self.reasons), None)

    @property
    def gate_detector(self) -> str:
        """The name of the detector that decides."""
        return self.gate.detector or self.detectors[0].use

    def found_in(self, folder: Path | None) -> Self:
        """The same policy, its relative paths leading from ``folder``."""
        found = self.model_copy()
        found._folder = folder
        return found

    @property
    def folder(self) -> Path | None:
        """Where the file lies that it was read from: its relative paths lead from there. None: from the
        working folder, as those of bundled policies and of ones that were made in Python."""
        return self._folder

    @property
    def is_comparison(self) -> bool:
        """Are there image seeds that anybody could have known before?"""
        return any(concept.evaluation_seeds for concept in (*self.erase, *self.retain))

    @property
    def thresholds(self) -> tuple[float, float]:
        """(tau_P, tau_F): what a held cell stays under and a failed cell exceeds (verdict.md, "What is
        claimed")."""
        if self.claim == "detector":
            return self.limits.tau, self.limits.tau
        return self.limits.tau_pass, self.limits.tau_fail

    @property
    def thresholds_of_updates(self) -> tuple[float, float]:
        """The same for one update of the population, which may cost a model more of what it draws: what it
        loses in sensitivity by that is taken off tau_P."""
        tau_pass, tau_fail = self.thresholds
        if self.claim == "detector" or self.updates is None:
            return tau_pass, tau_fail
        return tau_pass * (1 - self.updates.claim.max_drop), tau_fail

    def with_budget(self, *, updates: float | None = None, **more: float | None) -> Self:
        """The same policy with a larger budget (:meth:`Budget.raised`), all of which may be spent, and with
        more ``updates`` of its population."""
        changed = {"budget": self.budget.raised(**more), "on_undecided": "spend"}
        if updates is not None:
            if self.updates is None:
                raise UsageError("The policy has no 'updates', so there can be no more of them.")
            changed["updates"] = self.updates.raised(int(updates))
        return self.model_copy(update=changed)

    def with_base(self, source: str) -> Self:
        """The same policy for another checkpoint before erasure."""
        return self.model_copy(update={"base": Base(source=source)})

    def concept(self, name: str) -> Concept:
        """The erased or retained concept called ``name``."""
        return next(concept for concept in (*self.erase, *self.retain) if concept.name == name)

    def digest(self, contents: Mapping[str, Any] | None = None) -> str:
        """sha256 of the whole policy with its sets resolved and, where they are given, the contents of
        what it names: what is pinned."""
        return sha256_json([self.model_dump(mode="json"), contents or {}])

    def identity(self, contents: Mapping[str, Any] | None = None) -> str:
        """sha256 of what may not change in a run. A larger budget may, except where cells are read once,
        at their planned size."""
        return sha256_json(
            [self.model_dump(mode="json", exclude=beside_identity(self.sequential)), contents or {}]
        )

    def seed_digest(self) -> str:
        """sha256 of what seeds derive from beside checkpoint, base and nonce.

        A larger budget draws the same images first; where cells are read once the budget is part of it, or
        one could look at the same images again and again at growing sizes. The base counts by its digest, not
        by what it is called. Metrics and reasons decide nothing, so they may not choose the images either.
        """
        beside = ("nonce", "base", "metrics", "reasons")
        left_out = beside_identity(self.sequential) | dict.fromkeys(beside, True)
        return sha256_json(self.model_dump(mode="json", exclude=left_out))


def names_in(data: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """The names of all concepts with their synonyms, as far as ``data`` is a policy at all: what is wrong
    with it is said by validation."""
    found = list[tuple[str, tuple[str, ...]]]()
    for key in ("erase", "retain"):
        try:
            entries = expanded(data.get(key))
        except ValueError:
            continue
        for entry in entries if isinstance(entries, list | tuple) else ():
            concept = entry if isinstance(entry, dict) else getattr(entry, "__dict__", {})
            synonyms = concept.get("synonyms")
            more = synonyms if isinstance(synonyms, list | tuple) else ()
            found.append((str(concept.get("name")), tuple(map(str, more))))
    return found


def forbidden_names(policy: Policy) -> set[str]:
    """Every name, as it is read, that no probe's training set may hold: erased and retained concepts with
    their synonyms."""
    concepts = (*policy.erase, *policy.retain)
    return {as_read(name) for concept in concepts for name in (concept.name, *concept.synonyms)}


def _twice(first: str, other: str) -> str:
    if as_read(first) != as_read(other):
        return (
            f"the concept {other!a} looks like {first!a} and is read as another; write both in one alphabet, "
            "or leave one out"
        )
    also = "" if first == other else f": a text encoder reads {first!r} alike"
    return f"the concept '{other}' stands twice among erase, retain and their synonyms{also}"
