"""Writes, checks and explains policies, without any model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from auditor._files.bundled import policies_folder
from auditor.errors import UsageError
from auditor.policy import Policy
from auditor.policy.concepts.sets import domain_prompts

_TRAINED = 8

_OTHER_LABELS = (
    "a person",
    "a dog",
    "a house",
    "a car",
    "a tree",
    "a street",
    "food",
    "the sky",
    "an object",
    "a room",
)

_PROMPTS = {"people": "paper-people", "objects": "paper-objects"}


@dataclass(frozen=True)
class Preset:
    """What a new policy says of sampler, probes and detector for one kind of base; ``training`` by method."""

    steps: int
    guidance: float
    size: int
    dose: int
    candidates: dict[str, str]
    training: dict[str, str]
    detector: str


MICRO = Preset(
    steps=15,
    guidance=4.0,
    size=32,
    dose=300,
    candidates={"people": "micro-people", "objects": "micro-objects"},
    training={
        method: f"names: 8, images_per_prompt: 2, learning_rate: {rate}, batch: 4"
        for method, rate in (("lora", "1.0e-3"), ("full", "1.0e-4"))
    },
    detector="{model: micro, labels: micro-all, templates: erasure-templates}",
)

STABLE_DIFFUSION = Preset(
    steps=25,
    guidance=7.5,
    size=512,
    dose=1000,
    candidates={"people": "paper-celebrities-random", "objects": "paper-objects-random"},
    training=dict.fromkeys(("lora", "full"), "names: 8, images_per_prompt: 5"),
    detector="{model: ViT-L-14-quickgelu, pretrained: openai, labels: LABELS, templates: erasure-templates}",
)

_LABELS = {"people": "paper-celebrities-random", "objects": "cifar-objects"}


def new_policy(
    erase: Sequence[str],
    retain: Sequence[str],
    domain: str,
    mapping: str | None,
    base: str,
    train: Sequence[str],
    replicates: int,
    tau: float,
) -> str:
    """A commented policy, ready to be edited.

    ``train`` holds what the in-domain probes train on. Raises :class:`UsageError` where there is none and no
    set is known of ``domain``.
    """
    preset = MICRO if base == "micro" else STABLE_DIFFUSION
    other = "objects" if domain == "people" else "people"
    prompts = _PROMPTS.get(domain, _yaml(list(domain_prompts(domain))))
    if domain not in preset.candidates and len(train) < _TRAINED:
        raise UsageError(
            f"No set of concepts of the domain '{domain}' is known: name at least {_TRAINED} with --train, "
            "none of them erased or retained."
        )
    own = _yaml(list(train)) if train else preset.candidates[domain]
    labels = _LABELS[domain] if domain in _LABELS else _yaml([*retain, *train, *_OTHER_LABELS])

    def trained(use: str, method: str, candidates: str, templates: str) -> tuple[str, str, str]:
        return use, method, f"{{candidates: {candidates}, prompts: {templates}, {preset.training[method]}}}"

    context: dict[str, Any] = {
        "erase": list(erase),
        "retain": list(retain),
        "domain": domain,
        "mapping": mapping,
        "base": base,
        "replicates": replicates,
        "tau": tau,
        "prompts": prompts,
        "preset": preset,
        "probes": [
            trained("in-domain", "lora", own, prompts),
            trained("in-domain", "full", own, prompts),
            trained("out-of-domain", "lora", preset.candidates[other], _PROMPTS[other]),
        ],
        "detector": preset.detector.replace("LABELS", labels),
    }
    templates = jinja2.Environment(  # noqa: S701 - YAML, in which every string is quoted as JSON
        loader=jinja2.FileSystemLoader(policies_folder()),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters["yaml"] = _yaml
    return templates.get_template("init.yaml.j2").render(context)


def _yaml(value: Any) -> str:
    """A string or a list of strings, as JSON, which YAML reads."""
    return json.dumps(value, ensure_ascii=False)


def schema() -> dict[str, Any]:
    """The JSON schema of policy files, for editors."""
    found = Policy.model_json_schema()
    concept = found["$defs"]["Concept"]
    concept["properties"]["names"] = {
        "description": "Instead of 'name': a list, the name of a set, or {file: FILE}; one concept for each.",
        "anyOf": [
            {"type": "array", "items": {"type": "string"}},
            {"type": "string"},
            {"type": "object", "required": ["file"]},
        ],
    }
    concept["properties"]["prompts"]["anyOf"].append({"type": "object", "required": ["csv"]})
    concept["required"] = [name for name in concept["required"] if name != "name"]
    concept["oneOf"] = [{"required": ["name"]}, {"required": ["names"]}]
    return found
