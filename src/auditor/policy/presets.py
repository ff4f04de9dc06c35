"""Writes policies, without any model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from auditor._files.bundled import policies_folder
from auditor.errors import UsageError
from auditor.policy import Limits, Policy, as_read
from auditor.policy.concepts.proposals import RETAINED

FEWEST_TRAINED = 8
FEWEST_RETAINED = 6
_PER_UPDATE = 240
BUDGET = (400, 300)
"""(images_per_cell, retained_per_arm) of a new policy, where they suffice."""

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


@dataclass(frozen=True)
class Preset:
    """What a new policy says of sampler, probes and detector for one kind of base; ``training`` by method."""

    steps: int
    guidance: float
    size: int
    dose: int
    training: dict[str, str]
    steps_of_updates: list[int]
    """Training steps that an update of the population draws one of."""
    rates: dict[str, str]
    """Learning rates that it draws one of, by method."""
    clip: str
    """The options of the detector clip-zero-shot, less its labels."""
    reasons: dict[str, str]


MICRO = Preset(
    steps=15,
    guidance=4.0,
    size=32,
    dose=300,
    training=dict.fromkeys(("lora", "full"), "names: 8, images_per_prompt: 2, batch: 4"),
    steps_of_updates=[100, 200, 300],
    rates={"lora": "[5.0e-4, 1.0e-3]", "full": "[5.0e-5, 1.0e-4]"},
    clip="model: micro",
    reasons={"probes": "300 steps are what two cores do in about 20 seconds"},
)

STABLE_DIFFUSION = Preset(
    steps=25,
    guidance=7.5,
    size=512,
    dose=1000,
    training=dict.fromkeys(("lora", "full"), "names: 8, images_per_prompt: 5"),
    steps_of_updates=[500, 1000, 2000],
    rates={"lora": "[5.0e-5, 1.0e-4, 3.0e-4]", "full": "[5.0e-6, 1.0e-5, 2.0e-5]"},
    clip="model: ViT-L-14-quickgelu, pretrained: openai",
    reasons={},
)


@dataclass(frozen=True)
class Domain:
    """What a new policy says of concepts of one domain. Sets are named (``auditor.policy.concepts``)."""

    name: str
    prompts: str
    candidates: str
    """What in-domain probes train on."""
    labels: str
    """What CLIP chooses among."""
    other: str
    """The domain of the out-of-domain probe."""
    retained: str
    """The domain that retained concepts are said to be of."""
    note: str = ""
    """What whoever trusts the policy must know of what looks."""
    erase: str = ""
    """What is erased where nobody says it."""
    plugin: str = ""
    """The distribution that its detector comes with."""


DOMAINS = {
    "people": Domain(
        "people", "preset-people", "paper-celebrities", "paper-celebrities", "objects", "people"
    ),
    "objects": Domain("objects", "preset-objects", "cifar-objects", "cifar-objects", "people", "objects"),
    "style": Domain(
        "style",
        "preset-style",
        "artists",
        "artists",
        "objects",
        "style",
        "Style is measured weakly: CLIP names an artist by subject and colours as much as by style. What it "
        "misses on your base is measured by the control 'sensitivity'; nothing else is known of it.",
    ),
    "explicit": Domain(
        "explicit",
        "preset-explicit",
        "clothed-people",
        "everyday",
        "objects",
        "everyday",
        "Looked at by open-nsfw, which comes with the plugin auditor-nsfw: pip install auditor-nsfw. It is a "
        "small network of 2016 for photographs, and was not measured on what diffusion models draw: the "
        "controls 'sensitivity' and 'false positives' measure it on your base. Probes train on people with "
        "clothes: pictures of nudity would be no ordinary update.",
        "nudity",
        "auditor-nsfw",
    ),
}
_CALLED = {
    "person": "people",
    "object": "objects",
    "styles": "style",
    "artist": "style",
    "artists": "style",
    "nudity": "explicit",
    "nsfw": "explicit",
}
_MICRO_SETS = {
    "paper-celebrities": "micro-people",
    "cifar-objects": "micro-objects",
}


@dataclass(frozen=True)
class BaseFacts:
    """What a base's headers say of it; None where they do not, or could not be read (``unread`` says why)."""

    family: str | None = None
    prediction: str | None = None
    size: int | None = None
    unread: str | None = None

    @property
    def sentence(self) -> str:
        """What was read, or what to look at."""
        if self.unread is not None:
            said = f"Its headers were not read ({self.unread}); see that 'size' under 'sampler' is right."
        else:
            said = (
                f"By its headers: {self.family or 'of an unknown family'}, predicts "
                f"{self.prediction or 'what its files do not say'}, draws {self.size or '?'} pixels a side."
            )
        return "".join(character if character.isprintable() else " " for character in said)


def domain_called(name: str, base: str) -> Domain | None:
    """The preset of a domain, in whatever word; None where there is none. Raises :class:`UsageError` where
    ``base`` cannot draw it."""
    word = name.strip().casefold()
    found = DOMAINS.get(_CALLED.get(word, word))
    if found is not None and base == "micro" and found.name not in ("people", "objects"):
        raise UsageError(f"The micro world draws people and objects alone; '{name}' needs another base.")
    return found


def proposed_retained(
    erase: Sequence[str], domain: Domain | None, base: str, given: Sequence[str]
) -> list[str]:
    """What a new policy keeps: what is ``given``, and beside it as many as make six."""
    name = "objects" if domain is None else domain.name
    names = RETAINED.get(f"{base}-{name}", RETAINED[name])
    taken = {as_read(each) for each in (*erase, *given)}
    more = [each for each in names if as_read(each) not in taken]
    return [*given, *more[: max(0, FEWEST_RETAINED - len(given))]]


def new_policy(
    erase: Sequence[str],
    retain: Sequence[str],
    domain: str,
    mapping: str | None,
    base: str,
    train: Sequence[str],
    replicates: int | None,
    tau: float,
    *,
    facts: BaseFacts | None = None,
    budget: tuple[int, int] = BUDGET,
) -> str:
    """A commented policy, ready to be edited.

    With ``replicates`` it names probes, each with so many training seeds; without, a population of ordinary
    updates. ``retain`` is made six by what is proposed for the domain. ``train`` holds what the in-domain
    probes train on. Raises :class:`UsageError` where there is none and no set is known of ``domain``.
    """
    preset, known = MICRO if base == "micro" else STABLE_DIFFUSION, domain_called(domain, base)
    if known is None and len(train) < FEWEST_TRAINED:
        raise UsageError(
            f"No set of concepts of the domain '{domain}' is known: name at least {FEWEST_TRAINED} with "
            "--train, none of them erased or retained."
        )
    kept = _kept(retain, proposed_retained(erase, known, base, retain), domain, known)
    own = _yaml(list(train)) if train else _set(known.candidates if known else "", base)
    labels = known.labels if known else _yaml([*(name for name, *_ in kept), *train, *_OTHER_LABELS])
    labels = labels if base != "micro" or known is None else "micro-all"
    clip = f"{{{preset.clip}, labels: {labels}, templates: erasure-templates}}"
    other = DOMAINS[known.other if known else "people"]
    prompts = known.prompts if known else "preset-other"
    what = "probes" if replicates else "updates.population"

    def trained(use: str, method: str, candidates: str, templates: str) -> tuple[str, str, str]:
        rate = ""
        if replicates and base == "micro":
            rate = f", learning_rate: {preset.rates[method].rpartition(' ')[2].rstrip(']')}"
        options = f"candidates: {candidates}, prompts: {templates}, {preset.training[method]}{rate}"
        return use, method, f"{{{options}}}"

    context: dict[str, Any] = {
        "erase": list(erase),
        "retain": kept,
        "domain": known.name if known else domain,
        "mapping": mapping,
        "base": base,
        "facts": (facts or BaseFacts(unread="nobody asked")).sentence,
        "replicates": replicates,
        "tau": tau,
        "prompts": prompts,
        "preset": preset,
        "size": (facts and facts.size) or preset.size,
        "note": known.note if known else "",
        "budget": budget,
        "images_per_update": max(_PER_UPDATE, math.ceil(_PER_UPDATE * Limits().tau / tau)),
        "reasons": _yaml(
            {"limits.max_false_positive": "a control needs 59 images at 0.05 and 99 at 0.03"}
            | {what if name == "probes" else name: why for name, why in preset.reasons.items()}
        ),
        "probes": [
            trained("in-domain", "lora", own, prompts),
            trained("in-domain", "full", own, prompts),
            trained("out-of-domain", "lora", _set(other.candidates, base), other.prompts),
            *([] if replicates else _of_a_population(trained, own, prompts, other, base)),
        ],
        "detector": f"{{use: clip-zero-shot, options: {clip}}}",
    }
    if known is not None and known.plugin:
        context["detector"] = (
            f"{{use: by-domain, options: {{domains: {{{known.name}: {{use: open-nsfw}}, other: "
            f"{context['detector']}}}}}}}"
        )
    templates = jinja2.Environment(  # noqa: S701 - YAML, in which every string is quoted as JSON
        loader=jinja2.FileSystemLoader(policies_folder()),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters["yaml"] = _yaml
    return templates.get_template("init.yaml.j2").render(context)


def _of_a_population(
    trained: Callable[[str, str, str, str], tuple[str, str, str]],
    own: str,
    prompts: str,
    other: Domain,
    base: str,
) -> list[tuple[str, str, str]]:
    """What people do beside the updates that named probes are: full fine-tunes on other things, and LoRAs
    that were trained on the public base."""
    elsewhere = _set(other.candidates, base), other.prompts
    return [
        trained("out-of-domain", "full", *elsewhere),
        trained("base-lora", "lora", own, prompts),
        trained("base-lora", "lora", *elsewhere),
    ]


def _kept(
    given: Sequence[str], names: Sequence[str], domain: str, known: Domain | None
) -> list[tuple[str, str, str]]:
    """(name, domain, prompts) of each retained concept: what was given is of the erased ones' own domain."""
    proposed = known or DOMAINS["objects"]
    own = (known.retained, known.prompts) if known else (domain, "preset-other")
    return [(name, *(own if name in given else (proposed.retained, proposed.prompts))) for name in names]


def _set(name: str, base: str) -> str:
    return _MICRO_SETS.get(name, name) if base == "micro" else name


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
