"""One erasure as it was asked for: checkpoint, model, policy, eraser, options."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auditor._checkpoint.inspection import licence_of
from auditor._files.bundled import bundled_names, bundled_policy
from auditor._files.digest import seed_of
from auditor._files.documents import parse_options, read_mapping
from auditor._files.json_files import read_json
from auditor._files.nearest import listed, near_paths
from auditor._process.machine import versions
from auditor.errors import PluginError, RefusedError, UsageError
from auditor.plugin import _door as door
from auditor.plugin._loader import find_plugin, make_plugin
from auditor.plugin.contracts import Eraser, Erasure
from auditor.policy import Policy, load_policy

if TYPE_CHECKING:
    from auditor._checkpoint import Checkpoint
    from auditor._diffusion.model import DiffusionModel


@dataclass(frozen=True)
class ErasureJob:
    """One erasure as it was asked for, with everything it needs in memory."""

    opened: Checkpoint
    model: DiffusionModel
    policy: Policy
    name: str
    plugin: Eraser
    seed: int
    reuse: Path | None
    changes: tuple[str, ...]
    """The patterns of tensors that the eraser says it changes."""

    def erasure(
        self, folder: Path | None, on_step: Callable[[str, int, int], None] = lambda stage, step, steps: None
    ) -> Erasure:
        """What the eraser is given."""
        seed = seed_of(self.seed, self.name)
        return Erasure(self.model, self.policy.erase, self.policy.retain, seed, on_step, folder, self.reuse)

    def provenance(self) -> dict[str, Any]:
        """Where the result comes from, as far as it is known before the work."""
        record = find_plugin("erasers", self.name)
        return {
            "eraser": self.name,
            "plugin": f"{record.distribution} {record.version}",
            "parts": [part.origin for part in self.plugin.parts()],
            "options": self.plugin.options.model_dump(mode="json"),
            "erased": [concept.model_dump(mode="json") for concept in self.policy.erase],
            "retained": [concept.name for concept in self.policy.retain],
            "base": {
                "source": self.opened.source,
                "digest": self.opened.digest,
                "licence": licence_of(self.opened.folder),
                "form": self.opened.form.value,
                "over": None if self.opened.base is None else self.opened.base.digest,
            },
            "before": _earlier_erasures(self.opened),
            "policy": self.policy.digest(),
            "seed": self.seed,
            "reuse": None if self.reuse is None else str(self.reuse),
            "versions": versions(),
        }


def erasure_job(
    base: str | tuple[Checkpoint, DiffusionModel],
    policy: Policy | Path | str,
    eraser: str,
    options: dict[str, Any] | None,
    seed: int,
    reuse: Path | None,
    over: str | None,
    chosen: Mapping[str, str],
    *,
    offline: bool = False,
) -> ErasureJob:
    """Everything that an erasure needs, loaded and checked; arguments and errors are those of
    :func:`~auditor._erase.erase.erase`."""
    from auditor._checkpoint import open_checkpoint
    from auditor._checkpoint.load import load_model

    policy = policy if isinstance(policy, Policy) else load_policy(policy)
    plugin: Eraser = make_plugin("erasers", eraser, options or {})
    if reuse is not None and not plugin.reuses:
        raise UsageError(f"The eraser '{eraser}' takes nothing from an earlier result; leave out --reuse.")
    if reuse is not None and not (reuse / "erasure").is_dir():
        raise UsageError(
            f"{reuse} holds nothing to reuse: give the folder that an earlier 'auditor erase' wrote, with "
            "its erasure/ in it."
        )
    if isinstance(base, str):
        under = None if over is None else open_checkpoint(over, offline=offline)
        opened = open_checkpoint(base, base=under, offline=offline, chosen=chosen)
        if over is not None and opened.base is None:
            raise UsageError(f"{base} is a diffusers folder and lies over nothing; leave out --over.")
        base = (opened, load_model(opened, "float32"))
    parts = None if reuse is None else reuse / "erasure"
    return ErasureJob(*base, policy, eraser, plugin, seed, parts, _changes(plugin))


def _changes(plugin: Eraser) -> tuple[str, ...]:
    patterns = door.call(plugin, plugin.changes)
    if not isinstance(patterns, tuple) or not all(isinstance(pattern, str) for pattern in patterns):
        raise PluginError(
            f"{door.title(plugin)} returned {patterns!r} from changes(); a tuple of patterns is right."
        )
    return patterns


def _earlier_erasures(opened: Checkpoint) -> list[dict[str, Any]]:
    """What is recorded of erasures that ``opened`` is the result of, in their order: of the folder, then of a
    file over it that says it was made from that folder."""
    found = [_record_in(opened.folder)]
    if opened.overlay is not None and opened.base is not None:
        own = _record_in(opened.overlay.parent)
        made_from = own.get("base") if own is not None else None
        fits = isinstance(made_from, dict) and made_from.get("digest") == opened.base.digest
        found.append(own if fits else None)
    return [record for record in found if record is not None]


def _record_in(folder: Path) -> dict[str, Any] | None:
    """The ``erasure.json`` of a folder, if there is one that can be written down again."""
    path = folder / "erasure.json"
    try:
        record = read_json(path) if path.is_file() else None
        json.dumps(record, ensure_ascii=False).encode()
    except (OSError, ValueError, RecursionError, RefusedError):
        return None
    return record


def read_options(file: str | None, pairs: tuple[str, ...]) -> dict[str, Any]:
    """An eraser's options from a YAML file (or a bundled one, by name) and ``KEY=VALUE`` pairs, which win."""
    options: dict[str, Any] = {}
    if file is not None:
        path = Path(file)
        path = path if path.exists() else bundled_policy(f"erasers/{file}") or path
        if not path.exists():
            known = listed(file, [*near_paths(path), *bundled_names("erasers")], "bundled")
            raise UsageError(f"Cannot read the options {file}: there is no such file; {known}")
        options |= read_mapping(path)
    return options | parse_options(pairs)
