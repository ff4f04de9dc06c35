"""What a policy measures with: its probes, detectors and metrics, made once, checked, identified.

What they decide by is said by content: their options with lists resolved, and every file and folder that they
name. It is part of the digest to pin and of a run's identity: a policy whose label file has another line is
another policy (safety.md S20).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from auditor._files.digest import sha256_json, sha256_tree
from auditor._files.relative_paths import relative_to
from auditor.errors import PluginError, PolicyError, UsageError
from auditor.plugin import _door as door
from auditor.plugin._loader import CONTRACTS, SINGULAR, find_plugin, make_plugin, options_again
from auditor.plugin.contracts import (
    AnyProbe,
    Detector,
    Metric,
    OptionsModel,
    Plugin,
    PromptProbe,
    SamplingProbe,
    WeightProbe,
)
from auditor.policy import Concept, DetectorUse, MetricUse, Policy, ProbeUse, Sampler, as_read

_MOST_BYTES = 10**11
_LEAST_DIFFERENT = 0.1


class PlannedProbe(BaseModel):
    """What a plan is told of one probe; kept in the manifest, so that a journal is judged without plugins."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """What reports call it."""
    kind: Literal["weights", "sampling", "prompts"]
    """What of a model state is another than the erased model's."""
    sampler: Sampler | None = None
    """Of a sampling probe: how it draws."""
    least_different: float = 0.0
    """Of a sampling probe: the share of its images that must differ from the erased model's."""
    prompts: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Of a prompt probe: what it asks, by concept."""


Contents = Mapping[str, Mapping[str, str]]
"""By plugin (``detectors/0/clip-zero-shot``): what decides it, each with its sha256."""


@dataclass(frozen=True)
class Instruments:
    """The plugins of one policy, in its order."""

    probes: tuple[AnyProbe, ...]
    detectors: tuple[Detector, ...]
    metrics: tuple[Metric, ...]

    def contents(self) -> dict[str, dict[str, str]]:
        """What each decides by, by content. Raises :class:`UsageError` where a file that one names cannot
        be read."""
        return {place: _contents(plugin, _options) for place, plugin in self._each()}

    def refuse_changed(self, before: Contents) -> None:
        """Raise :class:`UsageError` where a file that they decide by is no longer what it was when
        ``before`` was taken."""
        now = {place: _contents_now(plugin) for place, plugin in self._each()}
        changed = [
            f"{place}: {what}"
            for place, named in now.items()
            for what in named
            if named[what] != before.get(place, {}).get(what)
        ]
        if changed:
            raise UsageError(
                f"What the policy names changed while the run went on ({changed[0]}); audit again in a new "
                "folder."
            )

    def identity(self) -> dict[str, str]:
        """Every plugin with distribution, version and the weights it decides by; also those inside of
        others. By kind and name (``detectors/clip-zero-shot``)."""
        named: dict[str, str] = {}
        for _, plugin in self._each():
            _name_plugin(plugin, named)
        return dict(sorted(named.items()))

    def _each(self) -> Iterator[tuple[str, Plugin]]:
        for kind, plugins in (
            ("probes", self.probes),
            ("detectors", self.detectors),
            ("metrics", self.metrics),
        ):
            for number, plugin in enumerate(plugins):
                yield f"{kind}/{number}/{plugin.name}", plugin


def make_instruments(policy: Policy) -> Instruments:
    """Make every plugin that ``policy`` asks for, once.

    Raises :class:`PolicyError` where one is unknown, its options are wrong, or it cannot be used so.
    """
    found = Instruments(
        detectors=make_detectors(policy),
        metrics=_make("metrics", policy.metrics, policy),
        probes=make_probes(policy),
    )
    for kind, plugins in (("detectors", found.detectors), ("metrics", found.metrics)):
        for plugin in plugins:
            if isinstance(plugin, Metric) and plugin.uses_outcomes:
                raise PolicyError(
                    f"The metric '{plugin.name}' is about what a detector saw, which an audit's checks say; "
                    "studies measure it."
                )
        names = [plugin.name for plugin in plugins]
        if len(set(names)) != len(names):
            raise PolicyError(f"A {SINGULAR[kind]} stands twice in the policy.")
    return found


def make_probes(policy: Policy) -> tuple[AnyProbe, ...]:
    """The probes of ``policy`` alone: enough to say what would be trained and drawn."""
    return _make("probes", policy.probes, policy)


def make_detectors(policy: Policy) -> tuple[Detector, ...]:
    """The detectors of ``policy`` alone: enough to look at pictures again."""
    return _make("detectors", policy.detectors, policy)


def _make(kind: str, uses: Sequence[ProbeUse | DetectorUse | MetricUse], policy: Policy) -> tuple[Any, ...]:
    with relative_to(policy.folder):
        return tuple(make_plugin(kind, use.use, use.options) for use in uses)


def planned_probes(policy: Policy, probes: tuple[AnyProbe, ...]) -> tuple[PlannedProbe, ...]:
    """What each probe of the policy is called in a report (title and method), and how its model states are
    drawn and asked.

    Raises :class:`PluginError` where a probe breaks its contract and :class:`PolicyError` where a name stands
    twice or the policy asks a probe for what it cannot do.
    """
    found = tuple(_planned(policy, use, probe) for use, probe in zip(policy.probes, probes, strict=True))
    names = [probe.name for probe in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise PolicyError(
            f"The probe {twice} stands twice in the policy; use replicates (training seeds) or doses "
            "(training steps) to repeat one."
        )
    return found


def _planned(policy: Policy, use: ProbeUse, probe: AnyProbe) -> PlannedProbe:
    title = door.call(probe, lambda: probe.title)
    if not isinstance(title, str) or not re.fullmatch(r"[\w.-]+", title):
        raise PluginError(
            f"{door.title(probe)} has the title {title!r}; letters, digits, hyphens and dots are right."
        )
    if title.split(".")[0] in ("base", "erased"):
        raise PluginError(f"{door.title(probe)} has the title {title!r}, which names another model state.")
    if isinstance(probe, WeightProbe):
        if probe.methods and use.method not in probe.methods:
            raise PolicyError(
                f"The probe {title} cannot train by method: {use.method}; it can by "
                f"{', '.join(probe.methods)}."
            )
        return PlannedProbe(name=f"{title}-{use.method}" if probe.methods else title, kind="weights")
    if use.replicates > 1 or len(use.doses) > 1:
        raise PolicyError(f"The probe {title} trains nothing: 'replicates' and 'doses' mean nothing to it.")
    if isinstance(probe, SamplingProbe):
        return _sampling(policy.sampler, title, probe)
    if isinstance(probe, PromptProbe):
        return _prompts(policy, title, probe)
    raise PluginError(
        f"{door.title(probe)} is none of WeightProbe, SamplingProbe and PromptProbe; subclass one of them."
    )


def _sampling(usual: Sampler, title: str, probe: SamplingProbe) -> PlannedProbe:
    sampler = door.call(probe, probe.sampler, usual)
    least = door.call(probe, getattr, probe, "least_different")
    if not isinstance(sampler, Sampler) or (sampler.size, sampler.batch) != (usual.size, usual.batch):
        raise PluginError(
            f"{door.title(probe)} returned {sampler!r} from sampler(); the policy's Sampler with another "
            "scheduler, steps, guidance or dtype is right."
        )
    if not isinstance(least, int | float) or not _LEAST_DIFFERENT <= least <= 1:
        raise PluginError(
            f"{door.title(probe)} has least_different {least!r}; {_LEAST_DIFFERENT} to 1 is right."
        )
    if sampler == usual:
        raise PolicyError(f"The probe {title} samples as the policy does anyway; give it other options.")
    return PlannedProbe(name=title, kind="sampling", sampler=sampler, least_different=float(least))


def _prompts(policy: Policy, title: str, probe: PromptProbe) -> PlannedProbe:
    asked: dict[str, tuple[str, ...]] = {}
    known = {as_read(name) for concept in policy.erase for name in (concept.name, *concept.synonyms)}
    kept = door.call(probe, lambda: _listed(probe.concepts()))
    unknown = next((name for name in kept if not isinstance(name, str) or as_read(name) not in known), None)
    if unknown is not None:
        raise PolicyError(f"The probe {title} has prompts for {unknown!r}, which the policy does not erase.")
    for concept in policy.erase:
        prompts = door.call(probe, lambda: _listed(probe.prompts(concept)))  # noqa: B023 - called at once
        if not all(isinstance(prompt, str) and prompt.strip() for prompt in prompts):
            raise PluginError(
                f"{door.title(probe)} returned {prompts!r} from prompts(); a list of prompts is right."
            )
        read = [as_read(prompt) for prompt in prompts]
        own = {as_read(prompt) for prompt in prompts_of(concept)}
        again = next((prompt for prompt, one in zip(prompts, read, strict=True) if one in own), None)
        if again is not None:
            raise PolicyError(
                f"The probe {title} asks {again!r}, which the policy asks anyway; leave it out."
            )
        if len(set(read)) != len(read):
            raise PolicyError(f"The probe {title} asks for {concept.name} with the same prompt twice.")
        if read:
            asked[concept.name] = tuple(prompts)
    if not asked:
        raise PolicyError(f"The probe {title} has no prompt for any erased concept.")
    return PlannedProbe(name=title, kind="prompts", prompts=asked)


def _listed(prompts: Iterable[str]) -> list[str]:
    if isinstance(prompts, str):
        raise TypeError("it returned a string; a list of strings is right")
    return list(prompts)


def prompts_of(concept: Concept) -> list[str]:
    """Every prompt that a policy asks of a concept, with its name and its synonyms."""
    names = (concept.name, *concept.synonyms)
    return [template.format(name) for name in names for template in concept.templates]


def parts_of(plugin: Plugin) -> tuple[Plugin, ...]:
    """The plugins that ``plugin`` is made of. Raises :class:`PluginError` where they are something else."""
    parts = door.call(plugin, lambda: tuple(plugin.parts()))
    for part in parts:
        if not isinstance(part, Plugin):
            raise PluginError(
                f"{door.title(plugin)} returned {type(part).__name__} from parts(); plugins are right."
            )
    return parts


def training_calls_of(probe: WeightProbe, steps: int) -> int:
    """How many calls of the denoiser a probe's training takes. Raises :class:`PluginError` where it gives no
    number."""
    return door.call(probe, lambda: int(probe.training_calls(steps)))


def fingerprint_of(detector: Detector) -> str:
    """The digest of the weights that a detector decides by; empty where options and version name them."""
    fingerprint = door.call(detector, detector.fingerprint)
    if not isinstance(fingerprint, str):
        raise PluginError(
            f"{door.title(detector)} returned {type(fingerprint).__name__} from fingerprint(); a string is "
            "right."
        )
    return fingerprint


def identity_of(plugin: Plugin) -> list[Any]:
    """Name, version, options, content of files, and the same of its parts; of a detector also the weights
    that it decides by."""
    files = [sha256_tree(path) for path in door.call(plugin, lambda: tuple(plugin.files()))]
    parts = [identity_of(part) for part in parts_of(plugin)]
    weights = [fingerprint_of(plugin)] if isinstance(plugin, Detector) else []
    return [plugin.name, plugin.origin, _dumped(plugin, _options)[1], files, parts, *weights]


def _name_plugin(plugin: Plugin, named: dict[str, str]) -> None:
    kind = next(kind for kind, contract in CONTRACTS.items() if isinstance(plugin, contract))
    origin = find_plugin(kind, plugin.name).origin
    if isinstance(plugin, Detector) and (fingerprint := fingerprint_of(plugin)):
        origin += f", weights {fingerprint}"
    before = named.get(f"{kind}/{plugin.name}", origin)
    named[f"{kind}/{plugin.name}"] = origin if origin in before else f"{before}; {origin}"
    for part in parts_of(plugin):
        _name_plugin(part, named)


def _contents_now(plugin: Plugin) -> dict[str, str]:
    """The same with options read anew. A plugin with parts that it made without the loader is made anew: what
    their options were read from is not known."""
    if _is_known(plugin):
        return _contents(plugin, options_again)
    kind = next(kind for kind, contract in CONTRACTS.items() if isinstance(plugin, contract))
    with relative_to(plugin.given_in):
        return _contents(make_plugin(kind, plugin.name, dict(plugin.given or {})), _options)


def _is_known(plugin: Plugin) -> bool:
    return plugin.given is not None and all(_is_known(part) for part in parts_of(plugin))


def _options(plugin: Plugin) -> OptionsModel:
    options: OptionsModel = plugin.options
    return options


def _dumped(
    plugin: Plugin, options_of: Callable[[Plugin], OptionsModel]
) -> tuple[OptionsModel, dict[str, Any]]:
    options = door.call(plugin, options_of, plugin)
    return options, door.call(plugin, lambda: options.model_dump(mode="json"))


def _contents(plugin: Plugin, options_of: Callable[[Plugin], OptionsModel]) -> dict[str, str]:
    options, written = _dumped(plugin, options_of)
    found = {name: sha256_json(value) for name, value in sorted(written.items())}
    for file in door.call(plugin, lambda: tuple(plugin.files())):
        try:
            if _size_of(file) > _MOST_BYTES:
                raise UsageError(
                    f"{door.title(plugin)} decides by {file}, which holds more than {_MOST_BYTES / 1e9:.0f} "
                    "GB."
                )
            found[f"file {options.written(file)}"] = sha256_tree(file)
        except OSError as error:
            raise UsageError(
                f"{door.title(plugin)} decides by {file}, which cannot be read ({error.strerror})."
            ) from error
    for number, part in enumerate(parts_of(plugin)):
        inner = _contents(part, options_of)
        found |= {f"{part.name} {number}: {name}": digest for name, digest in inner.items()}
    return found


def _size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder, through links, as they are hashed."""
    if not path.is_dir():
        return path.stat().st_size if path.is_file() else 0
    total, seen = 0, set[str]()
    for folder, folders, files in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        total += sum(_size_of(Path(folder, name)) for name in files)
    return total
