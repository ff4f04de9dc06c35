"""Says what a checkpoint is, from names and headers alone: nothing is loaded, no weight is read unless
asked."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from auditor._checkpoint.admit import file_in, open_checkpoint
from auditor._checkpoint.folder import (
    admit_folder,
    configs_of,
    family_of,
    schedule_path,
    weight_files,
)
from auditor._checkpoint.hub import headers_alone, switched_off
from auditor._checkpoint.located import Located, locate, on_hub
from auditor._checkpoint.neighbours import WEIGHT_FILES
from auditor._checkpoint.overlay import form_of
from auditor._checkpoint.survey import refuse_outside, survey
from auditor._files.json_files import read_json
from auditor._files.safetensors_header import Header, read_header
from auditor.errors import RefusedError
from auditor.families.registry import families

_LONGEST_CARD = 2**16


@dataclass(frozen=True)
class Component:
    """One part of a checkpoint, as its headers declare it."""

    name: str
    parameters: int
    bytes: int
    dtypes: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """What is known of a checkpoint without loading it; ``refused`` is the sentence that admission would
    refuse it with."""

    source: str
    form: str | None
    family: str | None
    prediction: str | None
    commit: str | None
    components: tuple[Component, ...]
    licence: str | None
    base_model: str | None
    never_read: tuple[str, ...]
    """Files with weights or code that an audit does not load: other variants, pickles, other programs'
    formats."""
    refused: str | None
    digest: str | None
    root_digest: str | None
    content: str = ""
    """Of one file over a base: what it holds, of an adapter with its strengths."""
    size: int | None = None
    """Of a folder: pixels a side of the images that it was trained to draw, where that is said."""


def inspect(
    source: str,
    *,
    full: bool = False,
    base: str | None = None,
    offline: bool = False,
    chosen: Mapping[str, str] | None = None,
) -> Inspection:
    """Look at ``source``. With ``full`` everything is admitted, hashed and scanned as for an audit, by the
    same code (a single file then needs ``base``). ``chosen``: see
    :func:`~auditor._checkpoint.admit.open_checkpoint`."""
    hub = None if full or offline or switched_off() else on_hub(source)
    with contextlib.ExitStack() as stack:
        if hub is None:
            located = locate(source, offline=offline)
        else:
            snapshot = stack.enter_context(headers_alone(hub))
            located = Located(source, snapshot.folder / (hub.file or ""), snapshot)
        return _looked_at(located, chosen or {}, full=full, base=base, offline=offline)


def _looked_at(
    located: Located, chosen: Mapping[str, str], *, full: bool, base: str | None, offline: bool
) -> Inspection:
    source = located.source
    form, components, refused = None, list[Component](), None
    digest = root = family = prediction = size = None
    content, path = "", file_in(located.path)
    # of the cache nothing is shown to be of a commit before every byte was read
    commit = located.snapshot.commit if located.snapshot and located.snapshot.listed else None
    try:
        if path.is_dir():
            form, components = "diffusers folder", _folder(located, chosen)
            family, prediction = _declared(path)
            size = family_of(path).native_size(configs_of(family_of(path), path))
        else:
            header = read_header(path)
            form, components = str(form_of(source, header)), [_component("tensors", {path: header})]
            family, prediction = _said_by(source, header)
        if full:
            opened_base = None if base is None or path.is_dir() else open_checkpoint(base, offline=offline)
            opened = open_checkpoint(source, base=opened_base, offline=offline, chosen=chosen)
            digest, root, form = opened.digest, opened.root_digest, str(opened.form)
            content, prediction, commit = opened.content, opened.prediction, opened.commit
    except RefusedError as error:
        refused = str(error)
    except (OSError, RuntimeError, ValueError, TypeError, AttributeError, OverflowError) as error:
        refused = f"{source} cannot be read whole ({type(error).__name__})."
    licence, base_model = _card(located.path)
    return Inspection(
        source,
        form,
        family,
        prediction,
        commit,
        tuple(components),
        licence,
        base_model,
        _never_read(located, chosen),
        refused,
        digest,
        root,
        content,
        size,
    )


def _folder(located: Located, chosen: Mapping[str, str]) -> list[Component]:
    if not (located.path / "model_index.json").is_file():
        raise RefusedError(f"{located.source} is not a diffusers folder: it holds no model_index.json.")
    everything = survey(located.source, located.path)
    components = {part: name for part, name in chosen.items() if part != "prediction"}
    return [
        _component(name, headers)
        for name, headers in admit_folder(
            family_of(located.path), located.source, located.path, everything, components
        ).items()
    ]


def _component(name: str, headers: dict[Path, Header]) -> Component:
    size = sum(tensor.end - tensor.start for header in headers.values() for tensor in header.tensors)
    kinds = sorted({kind for header in headers.values() for kind in header.dtypes})
    return Component(name, sum(header.parameters for header in headers.values()), size, tuple(kinds))


def _declared(folder: Path) -> tuple[str | None, str | None]:
    """What a folder is called, and what it predicts."""
    family = family_of(folder)
    usual = family.schedules.predictions[0]
    prediction = read_json(schedule_path(folder)).get("prediction_type", usual)
    return family.version(configs_of(family, folder)), str(prediction)


def _said_by(source: str, header: Header) -> tuple[str | None, str | None]:
    """The same of one file, as far as it says that."""
    versions = (family.version_of_file(header.shapes) for family in families())
    said = (family.said_prediction(source, header) for family in families())
    return next(filter(None, versions), None), next(filter(None, said), None)


def licence_of(path: Path) -> str | None:
    """The licence that a checkpoint's card names."""
    return _card(path)[0]


def _card(path: Path) -> tuple[str | None, str | None]:
    """Licence and base model that the card's front matter names; None where there is no card, or none that
    reads."""
    root = path if path.is_dir() else path.parent
    card = root / "README.md"
    try:
        refuse_outside(root.name, root, card)
        if not card.is_file():  # a pipe would be waited for
            return None, None
        with card.open(encoding="utf-8") as file:
            parts = file.read(_LONGEST_CARD).split("---")
        front: Any = yaml.safe_load(parts[1]) if len(parts) > 2 and not parts[0].strip() else {}
    except (OSError, ValueError, RecursionError, RefusedError, yaml.YAMLError):
        return None, None
    if not isinstance(front, dict):
        return None, None
    base = front.get("base_model")
    base = base[0] if isinstance(base, list) and base else base
    licence = front.get("license")
    return licence if isinstance(licence, str) else None, base if isinstance(base, str) else None


def _never_read(located: Located, chosen: Mapping[str, str]) -> tuple[str, ...]:
    """What lies in a folder or repository, holds weights or code, and is not loaded."""
    path = located.path
    if not file_in(path).is_dir():
        return ()
    loaded, family = set(), families()[0]
    with contextlib.suppress(RefusedError):
        family = family_of(path)
    for component, stem in family.stems.items():
        if component in chosen:
            loaded.add(path / component / chosen[component])
            continue
        with contextlib.suppress(RefusedError):
            loaded |= set(weight_files(located.source, path / component, stem))
    listed = located.snapshot.listed if located.snapshot is not None else ()
    names = {*listed, *(file.relative_to(path).as_posix() for file in path.rglob("*"))}
    read = {file.relative_to(path).as_posix() for file in loaded}
    return tuple(sorted(name for name in names - read if name.endswith((*WEIGHT_FILES, ".py"))))
