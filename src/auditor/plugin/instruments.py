"""What a policy measures with: its probes, detectors and metrics, made once, checked, identified.

What they decide by is said by content: their options with lists resolved, and every file and folder that they
name. It is part of the digest to pin and of a run's identity: a policy whose label file has another line is
another policy (safety.md S20).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
    WeightProbe,
)
from auditor.policy import DetectorUse, MetricUse, Policy, ProbeUse

_MOST_BYTES = 10**11


Contents = Mapping[str, Mapping[str, str]]
"""By plugin (``detectors/0/clip-zero-shot``): what decides it, each with its sha256."""


@dataclass(frozen=True)
class Instruments:
    """The plugins of one policy, in its order."""

    probes: tuple[AnyProbe, ...]
    detectors: tuple[Detector, ...]
    metrics: tuple[Metric, ...]
    members: tuple[AnyProbe, ...] = ()
    """One of each kind of update in the policy's population, with the first of each value that is drawn."""
    updates: tuple[AnyProbe, ...] = ()
    """One of each update that was drawn (:meth:`with_updates`)."""

    def with_updates(self, uses: Sequence[ProbeUse], policy: Policy) -> Instruments:
        """The same with a probe for each update that was drawn."""
        return replace(self, updates=_make("probes", uses, policy))

    @property
    def all_probes(self) -> tuple[AnyProbe, ...]:
        """The policy's own, then those of the updates: in the order of a plan's."""
        return (*self.probes, *self.updates)

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
            ("updates", self.members),
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
        members=make_members(policy),
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


def make_all_probes(policy: Policy, uses: Sequence[ProbeUse]) -> tuple[AnyProbe, ...]:
    """The probes of ``uses``: the policy's own, and those of the updates that were drawn from it."""
    return _make("probes", uses, policy)


def make_members(policy: Policy) -> tuple[AnyProbe, ...]:
    """One probe of each kind in the policy's population. Raises :class:`PolicyError` where an option that may
    be drawn is wrong."""
    if policy.updates is None:
        return ()
    found = []
    for member in policy.updates.population:
        first = {name: values[0] for name, values in member.draw.items()}
        uses = [ProbeUse(use=member.use, options=member.options | first)]
        uses += [
            ProbeUse(use=member.use, options=member.options | first | {name: value})
            for name, values in member.draw.items()
            for value in values[1:]
        ]
        found.append(_make("probes", uses, policy)[0])
    return tuple(found)


def make_detectors(policy: Policy) -> tuple[Detector, ...]:
    """The detectors of ``policy`` alone: enough to look at pictures again."""
    return _make("detectors", policy.detectors, policy)


def _make(kind: str, uses: Sequence[ProbeUse | DetectorUse | MetricUse], policy: Policy) -> tuple[Any, ...]:
    with relative_to(policy.folder):
        return tuple(make_plugin(kind, use.use, use.options) for use in uses)


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
