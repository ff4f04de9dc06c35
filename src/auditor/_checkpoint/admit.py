"""Resolve, admit, digest: from what a user names to a checkpoint that may be loaded. Nothing is unpickled,
nothing is run.

Five forms are read: a diffusers folder; and, over a base, a single file of Stable Diffusion 1.x or 2.x, a
UNet, a LoRA, and the tensors that an eraser changed. Order: names and headers first, then every byte once,
for its digest and its values.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath

from auditor._checkpoint.architecture import (
    declared_shapes,
    refuse_other_tensors,
    refuse_what_cannot_draw,
    refusing,
)
from auditor._checkpoint.folder import admit_folder, files_that_load, refuse_unet, vocabulary_of
from auditor._checkpoint.hub import HubSource, Snapshot, fetch, is_as_expected, parse_hub_source
from auditor._checkpoint.names import is_buffer, plain_name
from auditor._checkpoint.neighbours import weights_beside
from auditor._checkpoint.scan import Scanned, hash_and_scan, hash_and_scan_all, hash_files
from auditor._checkpoint.survey import survey
from auditor._files.bundled import micro_world
from auditor._files.digest import sha256_json
from auditor._files.json_files import read_json
from auditor._files.safetensors_header import Header, read_header
from auditor.errors import RefusedError, UsageError
from auditor.families.stable_diffusion.components import NOISE_SCHEDULE, SINGLE_FILE_PARTS, UNET_PARTS

_LOG = logging.getLogger(__name__)
_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle")


DELTA_BASE = "auditor_base"
"""Key of a safetensors file's metadata: the digest of the base that changed tensors were made over."""


class Form(StrEnum):
    """How a checkpoint is stored."""

    FOLDER = "diffusers folder"
    SINGLE = "single file"
    UNET = "UNet over a base"
    LORA = "LoRA over a base"
    DELTA = "changed tensors over a base"


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

    def weights_of(self, component: str) -> list[str]:
        """The names of a component's weight files among ``files``."""
        return [
            name for name in self.files if name.startswith(f"{component}/") and name.endswith(".safetensors")
        ]


@dataclass(frozen=True)
class Located:
    """What a user named, on this disk: a folder or a file, and what the Hub says of its files."""

    source: str
    path: Path
    snapshot: Snapshot | None = None


def locate(source: str, *, offline: bool = False) -> Located:
    """Resolve ``source``: ``micro``, a folder, a file, or a repository on the Hub. Raises
    :class:`UsageError` where nothing is there."""
    if source == "micro":
        return Located(source, micro_world())
    path = Path(source).expanduser()
    if path.exists() and not source.startswith("hf://"):
        return Located(source, path)
    hub = parse_hub_source(source)
    if hub is None:
        raise UsageError(
            f"There is no checkpoint at {source}; give a folder, a safetensors file, hf://org/name, or "
            "'micro' for the built-in base."
        )
    return _on_hub(source, hub, offline)


def _on_hub(source: str, hub: HubSource, offline: bool) -> Located:
    snapshot = fetch(hub, offline=offline)
    return Located(source, snapshot.folder / hub.file if hub.file else snapshot.folder, snapshot)


def open_checkpoint(source: str, *, base: Checkpoint | None = None, offline: bool = False) -> Checkpoint:
    """Resolve ``source``, admit it and take its digest. ``base`` is what a single file, a UNet or a LoRA is
    laid over.

    Raises :class:`UsageError` where there is nothing to open and :class:`RefusedError` where it is unsafe or
    malformed.
    """
    located = locate(source, offline=offline)
    # links in circles, files that vanish, whatever a configuration makes of the libraries
    with refusing(f"{source} cannot be read whole"):
        opened = _open_folder(located) if located.path.is_dir() else _open_file(located, base)
    if located.snapshot is not None:
        for name, path in opened.paths.items():
            digest = located.snapshot.expected.get(name)
            if opened.form is not Form.FOLDER:
                digest = next(
                    (value for key, value in located.snapshot.expected.items() if Path(key).name == name),
                    None,
                )
            if digest is not None and opened.files[name] != digest and not is_as_expected(path, digest):
                raise RefusedError(
                    f"{source}: {name} is not the file that the Hub describes; delete it from the cache and "
                    "fetch it again."
                )
    _LOG.info("admitted %s: %s, digest %s", source, opened.form, opened.digest)
    return opened


def _open_folder(located: Located) -> Checkpoint:
    source, folder = located.source, located.path
    if not (folder / "model_index.json").is_file():
        raise RefusedError(f"{source} is not a diffusers folder: it holds no model_index.json.")
    everything = survey(source, folder)
    weights = admit_folder(source, folder, everything)
    for component, headers in weights.items():
        shapes = {name: shape for header in headers.values() for name, shape in header.shapes.items()}
        refuse_other_tensors(source, component, folder, shapes)
    vocabulary, schedule = (
        vocabulary_of(source, everything),
        read_json(folder / "scheduler" / "scheduler_config.json"),
    )
    noise = {key: value for key, value in schedule.items() if key in NOISE_SCHEDULE}
    refuse_what_cannot_draw(source, vocabulary, read_json(folder / "text_encoder" / "config.json"), noise)
    paths = files_that_load(everything, weights)
    headers = {path: header for component in weights.values() for path, header in component.items()}
    files = hash_files({name: path for name, path in paths.items() if path not in headers})
    scanned = hash_and_scan_all({name: path for name, path in paths.items() if path in headers}, headers)
    files |= {name: found.file for name, found in scanned.items()}
    snapshot = located.snapshot
    return Checkpoint(
        source,
        folder,
        dict(sorted(files.items())),
        sha256_json(files),
        sum(header.parameters for header in headers.values()),
        commit=snapshot.commit if snapshot else None,
        root_digest=root_digest(everything, files),
        drawn_digest=sha256_json([_values(scanned), vocabulary.record]),
        beside=weights_beside({*everything, *(snapshot.listed if snapshot else ())}, files),
        beside_known=snapshot is None or bool(snapshot.listed),
        paths=paths,
    )


def _values(scanned: dict[str, Scanned]) -> dict[str, str]:
    """sha256 of every tensor that loads, by component and plain name, in whatever files they lie."""
    return {
        f"{name.split('/')[0]}/{plain_name(tensor)}": digest
        for name, found in scanned.items()
        for tensor, digest in found.tensors.items()
        if not is_buffer(tensor)
    }


def root_digest(everything: dict[str, Path], known: dict[str, str]) -> str:
    """The digest that OpenSSF model signing gives a folder; files hashed before are not read again."""
    names = {name: path for name, path in everything.items() if path.suffix != ".sig"}
    digests = hash_files({name: path for name, path in names.items() if name not in known}) | known
    return hashlib.sha256(
        b"".join(bytes.fromhex(digests[name]) for name in sorted(names, key=PurePosixPath))
    ).hexdigest()


# -- one file over a base ------------------------------------------------------------------------------------


def form_of(source: str, header: Header) -> Form:
    """What one file holds, by the names of its tensors. Raises :class:`RefusedError` where that cannot be
    audited."""
    names = header.shapes.keys()
    refuse_unet(source, header.shapes)
    if any(".lora" in name or "lora_" in name for name in names):
        return Form.LORA
    if any(name.startswith("model.diffusion_model.") for name in names):
        return Form.SINGLE
    if DELTA_BASE in header.metadata and all(name.split(".")[0] in UNET_PARTS for name in names):
        return Form.DELTA  # by its own word: an eraser may change all but a few tensors
    if "conv_in.weight" in names and "conv_out.weight" in names:
        return Form.UNET
    if all(name.split(".")[0] in UNET_PARTS for name in names):
        return Form.DELTA
    raise RefusedError(
        f"{source} holds neither a Stable Diffusion model, a UNet, a LoRA nor changed tensors of a UNet (the "
        f"first is {min(names)})."
    )


def _open_file(located: Located, base: Checkpoint | None) -> Checkpoint:
    source, path = located.source, located.path
    if path.suffix in _PICKLES:
        raise RefusedError(
            f"{source} is a pickle, which can run code when it is opened; convert it first: auditor convert "
            f"{source} OUT.safetensors"
        )
    if path.suffix != ".safetensors":
        raise RefusedError(f"{source} is neither a folder nor a safetensors file.")
    header = read_header(path)
    form = form_of(source, header)
    if base is None:
        raise UsageError(
            f"{source} is a {form}: give the base that it belongs to, which has its configuration and "
            "vocabulary (--base; in auditor erase --over)."
        )
    _refuse_misfit(source, form, header, base)
    scanned, name = hash_and_scan(path, header), path.name
    digest = scanned.file
    return Checkpoint(
        source,
        base.folder,
        {name: digest},
        sha256_json({"form": form, "file": digest, "base": base.digest}),
        header.parameters if form is Form.SINGLE else base.parameters,
        form=form,
        overlay=path,
        base=base,
        commit=located.snapshot.commit if located.snapshot else None,
        root_digest=hashlib.sha256(bytes.fromhex(digest)).hexdigest(),
        drawn_digest=sha256_json(
            [
                form,
                {tensor: own for tensor, own in scanned.tensors.items() if "." in tensor},
                base.drawn_digest,
            ]
        ),
        paths={name: path},
    )


def _refuse_misfit(source: str, form: Form, header: Header, base: Checkpoint) -> None:
    """Does one file fit the base that it is laid over? A LoRA's fit is seen when it is laid on."""
    if base.form is not Form.FOLDER:
        raise UsageError(f"{base.source} is a {base.form}; a base is a diffusers folder.")
    if form in (Form.UNET, Form.DELTA):
        declared = declared_shapes("unet", read_json(base.folder / "unet" / "config.json"))
        held = header.shapes
        if form is Form.UNET:
            refuse_other_tensors(source, "unet", base.folder, held)
        made_over = header.metadata.get(DELTA_BASE) if form is Form.DELTA else None
        if made_over not in (None, base.digest):
            raise RefusedError(
                f"{source} was made over another base ({made_over[:12]}…) than {base.source} "
                f"({base.digest[:12]}…)."
            )
        wrong = next((name for name, shape in held.items() if declared.get(name) != shape), None)
        if wrong is not None:
            raise RefusedError(
                f"{source} does not fit {base.source}: {wrong} is of shape {held[wrong]}, there it is "
                f"{declared.get(wrong)}."
            )
    if form is Form.SINGLE:
        parts = SINGLE_FILE_PARTS
        for component, prefix in parts.items():
            if not any(name.startswith(prefix) for name in header.shapes):
                raise RefusedError(f"{source} has no {component}: no tensor is called {prefix}…")
        other = [name for name in header.shapes if "." in name and not name.startswith(tuple(parts.values()))]
        if other:
            raise RefusedError(
                f"{source} holds {len(other)} tensors beside the model's own, the first {other[0]}; another "
                "program may load those."
            )
