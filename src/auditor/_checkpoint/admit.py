"""Resolve, admit, digest: from what a user names to a checkpoint that may be loaded. Nothing is unpickled,
nothing is run.

Five forms are read: a diffusers folder; and, over a base, a single file with the whole model, a UNet, a
LoRA, and the tensors that an eraser changed. What they may hold is asked of the family. Order: names and
headers first, then every byte once, for its digest and its values.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from auditor._checkpoint.adapters import ADAPTER_CONFIG, ADAPTER_FILES
from auditor._checkpoint.architecture import declared_shapes, refuse_other_tensors
from auditor._checkpoint.folder import (
    admit_folder,
    configs_of,
    family_of,
    files_that_load,
    schedule_of,
    words_of,
)
from auditor._checkpoint.hub import refuse_other_files
from auditor._checkpoint.located import Located, locate
from auditor._checkpoint.neighbours import weights_beside
from auditor._checkpoint.overlay import Overlay, form_of, read_overlay
from auditor._checkpoint.prediction import prediction_of
from auditor._checkpoint.scan import Scanned, hash_and_scan, hash_and_scan_all, hash_file, hash_files
from auditor._checkpoint.survey import survey
from auditor._files.digest import sha256_json
from auditor._files.json_files import read_json
from auditor._files.safetensors_header import Header, read_header, read_number
from auditor.errors import RefusedError, UsageError
from auditor.families.family import Family
from auditor.families.on_disk import Configs, Form
from auditor.families.refusing import refusing

_LOG = logging.getLogger(__name__)
_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle")

DELTA_BASE = "auditor_base"
"""Key of a safetensors file's metadata: the digest of the base that changed tensors were made over."""


@dataclass(frozen=True)
class Checkpoint:
    """An admitted checkpoint.

    ``folder`` gives configurations and vocabulary: its own, or the base's where ``overlay`` is one file over
    a base. ``files`` are the sha256 of everything that loading reads, by name; ``digest`` names them
    together. ``root_digest`` names all files as OpenSSF model signing does: sha256 over the files' sha256 (32
    bytes each) in the order of their names.

    ``drawn_digest`` names what is drawn with, values and vocabulary, however it is stored: seeds derive from
    it, so that neither a key that nobody reads nor another way of storing the same values is another throw of
    the dice.
    """

    source: str
    folder: Path
    files: dict[str, str]
    digest: str
    parameters: int
    family: Family = field(repr=False)
    form: Form = Form.FOLDER
    overlay: Path | None = None
    base: Checkpoint | None = None
    commit: str | None = None
    root_digest: str = ""
    drawn_digest: str = ""
    beside: tuple[str, ...] = ()
    """Files that hold weights for some program and were not audited."""
    beside_known: bool = True
    """False for a repository that was taken from the cache: what else it holds was not asked."""
    paths: dict[str, Path] = field(default_factory=dict, repr=False, compare=False)
    """Where each of ``files`` lies."""
    prediction: str = ""
    """What its denoiser was trained to predict, as its files say it or as it was chosen."""
    chosen: dict[str, str] = field(default_factory=dict)
    """What the user chose where the files do not say one thing (``prediction``, or a component's weights)."""
    replaced: tuple[str, ...] = ()
    """Of one file over a base: the parts that are not the base's own."""
    content: str = ""
    """Of one file over a base: what it holds, in words; of an adapter with its strengths."""

    def weights_of(self, component: str) -> list[str]:
        """The names of a component's weight files among ``files``."""
        return [
            name for name in self.files if name.startswith(f"{component}/") and name.endswith(".safetensors")
        ]


def open_checkpoint(
    source: str,
    *,
    base: Checkpoint | None = None,
    offline: bool = False,
    chosen: Mapping[str, str] | None = None,
) -> Checkpoint:
    """Resolve ``source``, admit it and take its digest. ``base`` is what a single file, a UNet or a LoRA is
    laid over.

    ``chosen`` says what is meant where files do not say one thing: ``prediction`` (``epsilon`` or
    ``v_prediction``), and by component the file of weights (``{"unet":
    "diffusion_pytorch_model.fp16.safetensors"}``). Raises :class:`UsageError` where there is nothing to open
    and :class:`RefusedError` where it is unsafe or malformed.
    """
    located = locate(source, offline=offline)
    # links in circles, files that vanish, whatever a configuration makes of the libraries
    with refusing(f"{source} cannot be read whole"):
        if file_in(located.path).is_dir():
            opened = _open_folder(located, chosen or {})
        elif set(chosen or {}) - {"prediction"}:
            raise UsageError(
                f"{source} is one file; a component's weights are chosen in a folder (--component)."
            )
        else:
            opened = _open_file(located, base, chosen or {})
    if located.snapshot is not None:
        refuse_other_files(source, located.snapshot, opened.files, opened.paths)
    _LOG.info("admitted %s: %s, digest %s", source, opened.form, opened.digest)
    return opened


def _open_folder(located: Located, chosen: Mapping[str, str]) -> Checkpoint:
    source, folder = located.source, located.path
    if not (folder / "model_index.json").is_file():
        raise RefusedError(f"{source} is not a diffusers folder: it holds no model_index.json.")
    everything = survey(source, folder)
    files_chosen = {part: name for part, name in chosen.items() if part != "prediction"}
    family = family_of(folder)
    weights = admit_folder(family, source, folder, everything, files_chosen)
    for component, headers in weights.items():
        shapes = {name: shape for header in headers.values() for name, shape in header.shapes.items()}
        refuse_other_tensors(family, source, component, folder, shapes)
    words = words_of(family, source, everything)
    schedule = schedule_of(family, folder)
    where = "its scheduler's configuration"
    (prediction,) = {
        prediction_of(family, source, header, schedule, chosen.get("prediction"), where)
        for header in weights[family.denoiser].values()
    }
    configs = configs_of(family, folder)
    family.refuse_what_cannot_draw(source, words, configs, schedule)
    paths = files_that_load(family, everything, weights)
    headers = {path: header for component in weights.values() for path, header in component.items()}
    files = hash_files({name: path for name, path in paths.items() if path not in headers})
    scanned = hash_and_scan_all({name: path for name, path in paths.items() if path in headers}, headers)
    files |= {name: found.file for name, found in scanned.items()}
    snapshot, said = located.snapshot, dict(sorted(chosen.items()))
    return Checkpoint(
        source,
        folder,
        dict(sorted(files.items())),
        digest_of_folder(files, said),
        sum(header.parameters for header in headers.values()),
        family,
        commit=snapshot.commit if snapshot else None,
        root_digest=root_digest(everything, files),
        drawn_digest=sha256_json(
            [_values(family, configs, scanned), words.record, *_other(family, prediction, schedule)]
        ),
        beside=weights_beside(family, {*everything, *(snapshot.listed if snapshot else ())}, files),
        beside_known=snapshot is None or bool(snapshot.listed),
        paths=paths,
        prediction=prediction,
        chosen=said,
    )


def digest_of_folder(files: Mapping[str, str], chosen: Mapping[str, str]) -> str:
    """The digest of a folder: of every file that loading reads, and of what was chosen where it does not say
    one thing."""
    return sha256_json({"files": dict(files), "chosen": dict(chosen)} if chosen else dict(files))


def _values(family: Family, configs: Configs, scanned: dict[str, Scanned]) -> dict[str, str]:
    """sha256 of every tensor that loads, by component and plain name, in whatever files they lie."""
    return {
        f"{name.split('/')[0]}/{family.plain_name(tensor)}": digest
        for name, found in scanned.items()
        for tensor, digest in found.tensors.items()
        if not family.is_unused(name.split("/")[0], tensor, configs[name.split("/")[0]])
    }


def root_digest(everything: dict[str, Path], known: dict[str, str]) -> str:
    """The digest that OpenSSF model signing gives a folder; files hashed before are not read again."""
    names = {name: path for name, path in everything.items() if path.suffix != ".sig"}
    digests = hash_files({name: path for name, path in names.items() if name not in known}) | known
    return hashlib.sha256(
        b"".join(bytes.fromhex(digests[name]) for name in sorted(names, key=PurePosixPath))
    ).hexdigest()


# -- one file over a base ------------------------------------------------------------------------------------


def file_in(path: Path) -> Path:
    """The file that is meant by ``path``: itself, or of a folder with one adapter in it that adapter's."""
    if path.is_dir() and not (path / "model_index.json").is_file():
        named = (path / name for name in ADAPTER_FILES)
        return next((file for file in named if file.is_file()), path)
    return path


def settings_beside(path: Path, header: Header) -> Path | None:
    """The file with an adapter's settings beside ``path``, where peft wrote that (by its name, or by its
    tensors' names); None where there is none."""
    config = path.with_name(ADAPTER_CONFIG)
    by_peft = path.name == ADAPTER_FILES[0] or any(
        name.startswith("base_model.model.") for name in header.shapes
    )
    return config if by_peft and config.is_file() else None


def declared_by(base: Checkpoint) -> dict[str, dict[str, tuple[int, ...]]]:
    """Names and shapes of the tensors of each part of a base."""
    configs = configs_of(base.family, base.folder)
    return {part: declared_shapes(base.family, part, config) for part, config in configs.items()}


def _open_file(located: Located, base: Checkpoint | None, chosen: Mapping[str, str]) -> Checkpoint:
    source, path = located.source, file_in(located.path)
    if path.suffix in _PICKLES:
        raise RefusedError(
            f"{source} is a pickle, which can run code when it is opened; convert it first: auditor convert "
            f"{source} OUT.safetensors"
        )
    if path.suffix != ".safetensors":
        raise RefusedError(f"{source} is neither a folder nor a safetensors file.")
    if not path.is_file():
        raise RefusedError(f"{source} cannot be read: it is no ordinary file.")
    header = read_header(path)
    if base is None:
        raise UsageError(
            f"{source} is a {form_of(source, header)}: give the base that it belongs to, which has its "
            "configuration and vocabulary (--base; in auditor erase --over)."
        )
    if base.form is not Form.FOLDER:
        raise UsageError(f"{base.source} is a {base.form}; a base is a diffusers folder.")
    declared = declared_by(base)
    config = settings_beside(path, header)
    numbers = {tensor.name: tensor for tensor in header.tensors}
    overlay = read_overlay(
        family := base.family,
        source,
        header,
        None if config is None else read_json(config),
        declared,
        lambda name: read_number(path, numbers[name]),
    )
    _refuse_other_base(source, overlay, header, base)
    schedule = schedule_of(family, base.folder) | {"prediction_type": base.prediction}
    prediction = prediction_of(family, source, header, schedule, chosen.get("prediction"), base.source)
    scanned = hash_and_scan(path, header)
    files = {path.name: scanned.file} | ({} if config is None else {config.name: hash_file(config)})
    values = overlay.values(scanned.tensors)
    return Checkpoint(
        source,
        base.folder,
        files,
        sha256_json(
            {
                "form": overlay.form,
                "files": files,
                "base": base.digest,
                "values": values,
                "chosen": dict(chosen),
            }
        ),
        header.parameters if overlay.form is Form.SINGLE else base.parameters,
        family,
        form=overlay.form,
        overlay=path,
        base=base,
        commit=located.snapshot.commit if located.snapshot else None,
        root_digest=root_digest({path.name: path} | ({} if config is None else {config.name: config}), files),
        drawn_digest=sha256_json([values, base.drawn_digest, *_other(family, prediction, schedule)]),
        paths={path.name: path} | ({} if config is None else {config.name: config}),
        prediction=prediction,
        chosen=dict(chosen),
        replaced=overlay.parts,
        content=overlay.sentence(declared),
    )


def _other(family: Family, prediction: str, schedule: Mapping[str, Any]) -> list[str]:
    """The prediction, where it is another than the schedule's: to choose what is there anyway is no other
    throw."""
    usual = schedule.get("prediction_type", family.schedules.predictions[0])
    return [] if prediction == usual else [prediction]


def _refuse_other_base(source: str, overlay: Overlay, header: Header, base: Checkpoint) -> None:
    """Refuse changed tensors that say themselves that they were made over another base."""
    made_over = header.metadata.get(DELTA_BASE)
    changed = overlay.form in (Form.DELTA, overlay.family.whole_denoiser)
    if changed and made_over not in (None, base.digest):
        raise RefusedError(
            f"{source} was made over another base ({made_over[:12]}…) than {base.source} "
            f"({base.digest[:12]}…)."
        )
