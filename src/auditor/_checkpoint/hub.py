"""Checkpoints on the Hub: the commit first, then only the files that loading reads, each checked against what
the Hub says of it.

Tokens come from where ``huggingface_hub`` keeps them (``HF_TOKEN``, ``hf auth login``) and are never read,
written or logged here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from auditor._checkpoint.adapters import ADAPTER_CONFIG, ADAPTER_FILES
from auditor._checkpoint.addresses import HubSource
from auditor._checkpoint.folder import LICENCES
from auditor._checkpoint.hub_answers import ask, named, not_here
from auditor._files.places import sentence_at
from auditor._files.safetensors_header import LARGEST_HEADER
from auditor._files.whole_files import write_whole
from auditor.errors import AuditorError, RefusedError, UsageError
from auditor.families.registry import families

_LOG = logging.getLogger(__name__)
_SPARE_BYTES = 256 * 2**20
_LARGEST_SPARSE = 2**40
_PARTIAL = 206  # an answer with the asked range alone


@dataclass(frozen=True)
class Snapshot:
    """What was fetched: the commit, the folder that holds its files, and the digest the Hub gives each
    (sha256, or git's sha1)."""

    commit: str
    folder: Path
    expected: dict[str, str]
    listed: tuple[str, ...] = ()
    """Every file of the repository at that commit; what is not needed was not fetched. Empty where the Hub
    was not asked."""


def fetch(source: HubSource, *, offline: bool = False) -> Snapshot:
    """Bring a checkpoint into the Hub's cache, or with ``offline`` take it from there. Nothing of it is
    opened.

    Raises :class:`UsageError` where it is not there or not allowed, :class:`AuditorError` where the Hub
    cannot be reached or the disk is too full, :class:`RefusedError` where a file is not what the Hub says it
    is (it is removed, to be fetched again).
    """
    why = "--offline" if offline else switched_off()
    return _from_hub(source) if why is None else _from_cache(source, why)


def switched_off() -> str | None:
    """What in the environment switches the network off for the Hub, in words; None where nothing does."""
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE:
        return None
    return f"{'HF_HUB_OFFLINE' if os.environ.get('HF_HUB_OFFLINE') else 'TRANSFORMERS_OFFLINE'} is set"


def _from_hub(source: HubSource) -> Snapshot:
    from huggingface_hub import HfApi, constants, hf_hub_download

    info = ask(source, lambda: HfApi().model_info(source.repo, revision=source.revision, files_metadata=True))
    listed = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    names = needed(source, listed)
    _refuse_full_disk(source, Path(constants.HF_HUB_CACHE), sum(listed[name].size or 0 for name in names))
    expected, folder = {}, None
    for name in names:
        path = Path(ask(source, partial(hf_hub_download, source.repo, name, revision=info.sha)))
        lfs = listed[name].lfs
        digest = (lfs.sha256 if lfs else listed[name].blob_id) or ""
        if path.stat().st_size != listed[name].size or not is_as_expected(path, digest):
            try:
                path.resolve().unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                what = "it was removed, fetch it again"
            except OSError as error:
                what = f"remove it and fetch it again: {sentence_at(error, path).removesuffix('.')}"
            raise RefusedError(f"{source.repo}: {name} is not the file that the Hub describes; {what}.")
        expected[name] = digest
        folder = path.parents[len(PurePosixPath(name).parts) - 1]
    assert folder is not None and info.sha is not None
    kept = _digests_kept(folder)
    if not expected.items() <= kept.items():
        content = json.dumps(kept | expected, sort_keys=True, indent=1)
        _keep(_record_of(folder), content, "fetch it again where the cache can be written")
    # now that all of it is there, and not before, the revision's name leads to it without a network
    _keep(folder.parent.parent / "refs" / (source.revision or "main"), info.sha, "name its commit offline")
    return Snapshot(info.sha, folder, expected, tuple(sorted(listed)))


def _keep(path: Path, content: str, otherwise: str) -> None:
    """Write a note of ours into the Hub's cache, where that can be written."""
    try:
        if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != content:
            write_whole(path, content.encode())
    except OSError as error:
        _LOG.warning("%s; %s", sentence_at(error, path), otherwise)


def _record_of(folder: Path) -> Path:
    """Where the digests that the Hub gave a snapshot's files are kept: beside the snapshots."""
    return folder.parent.parent / "auditor" / f"{folder.name}.json"


def _digests_kept(folder: Path) -> dict[str, str]:
    """The digests that the Hub gave the files of a snapshot when they were fetched; none where nothing that
    reads was kept."""
    try:
        kept = json.loads(_record_of(folder).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return {k: v for k, v in kept.items() if isinstance(v, str)} if isinstance(kept, dict) else {}


def _from_cache(source: HubSource, why: str) -> Snapshot:
    from huggingface_hub import try_to_load_from_cache

    revision = source.revision or "main"
    firsts = [source.file] if source.file else ["model_index.json", *ADAPTER_FILES]
    there = ((first, try_to_load_from_cache(source.repo, first, revision=revision)) for first in firsts)
    first, found = next(((first, path) for first, path in there if isinstance(path, str)), ("", ""))
    if not found:
        raise not_here(source, why)
    folder = Path(found).parents[len(PurePosixPath(first).parts) - 1]
    names = needed(
        source, (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    )
    expected = {name: digest for name in names if (digest := _named_by(folder / name, folder))}
    expected |= {name: digest for name, digest in _digests_kept(folder).items() if name in names}
    bare = next((name for name in names if name not in expected), None)
    if bare is not None:
        commit = named(HubSource(source.repo, folder.name, source.file))
        raise UsageError(
            f"{source.repo}: {bare} lies in the Hub's cache without what the Hub said of it, so it cannot be "
            f"shown to be of the commit {folder.name}; run 'auditor fetch {commit}' with a network once, or "
            f"give the folder, which names no commit: {folder}"
        )
    return Snapshot(folder.name, folder, expected)


def _named_by(path: Path, folder: Path) -> str | None:
    """In a cache with links a file is one to a blob that is named by the digest that the Hub gave it."""
    blob = path.resolve()
    linked = path.is_symlink() and blob.parent == (folder.parent.parent / "blobs").resolve()
    return blob.name if linked and _is_digest(blob.name) else None


def refuse_other_files(
    source: str, snapshot: Snapshot, files: Mapping[str, str], paths: Mapping[str, Path]
) -> None:
    """Raise :class:`RefusedError` where a file that loads cannot be shown to be of the snapshot's commit.

    ``files`` are their sha256 and ``paths`` where they lie, by name: in the repository, or a bare one.
    """
    bare = {PurePosixPath(name).name: digest for name, digest in snapshot.expected.items()}
    for name, path in paths.items():
        beside = path.parent == (snapshot.folder / name).parent
        digest = snapshot.expected.get(name) if beside else bare.get(name)
        if digest is None:
            raise RefusedError(
                f"{source}: {name} was not fetched with the commit {snapshot.commit}, so it cannot be "
                "shown to be of it."
            )
        if files[name] != digest and not is_as_expected(path, digest):
            raise RefusedError(
                f"{source}: {name} is not the file that the Hub describes; delete it from the cache and "
                "fetch it again."
            )


def is_as_expected(path: Path, digest: str) -> bool:
    """Does a file have the sha256, or the git object name, that the Hub gives?"""
    if not _is_digest(digest):
        return False
    hasher = (
        hashlib.sha256()
        if len(digest) == 64
        else hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    )
    with path.open("rb") as file:
        while block := file.read(2**20):
            hasher.update(block)
    return hasher.hexdigest() == digest


def _is_digest(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", text) is not None


def needed(source: HubSource, listed: Iterable[str]) -> list[str]:
    """The files that loading reads, card and licence: never a pickle, never the safety checker, one
    precision of the weights. By names alone: which family a pipeline is of is not known before its index is
    read, so the files of every family are."""
    names = sorted(listed)
    if source.file is not None:
        if source.file not in names:
            raise UsageError(f"{source.repo} holds no {source.file}.")
        return [source.file, *_settings_beside(source.file, names)]
    if "model_index.json" not in names and (
        adapter := next((name for name in ADAPTER_FILES if name in names), None)
    ):
        return [adapter, *_settings_beside(adapter, names)]
    if "model_index.json" not in names:
        single = [name for name in names if name.endswith(".safetensors") and "/" not in name]
        hint = (
            "; name one of its files, for instance "
            f"hf://{source.repo}{'@' + source.revision if source.revision else ''}/{single[0]}"
            if single
            else ""
        )
        raise RefusedError(f"{source.repo} is not a diffusers pipeline: it holds no model_index.json{hint}.")
    beside = {component.name for family in families() for component in family.components}
    wanted = [
        "model_index.json",
        *(name for name in names if name == "README.md" or name.split(".")[0].upper() in LICENCES),
    ]
    wanted += [
        name
        for name in names
        if name.split("/")[0] in beside and name.count("/") == 1 and name.endswith((".json", ".txt"))
    ]
    for component, stem in sorted({pair for family in families() for pair in family.stems.items()}):
        inside = [
            name for name in names if name.startswith(f"{component}/{stem}") and name.endswith(".safetensors")
        ]
        plain = [
            name for name in inside if re.fullmatch(rf"{component}/{stem}(-\d+-of-\d+)?\.safetensors", name)
        ]
        half = [
            name
            for name in inside
            if re.fullmatch(rf"{component}/{stem}(\.fp16(-\d+-of-\d+)?|-\d+-of-\d+\.fp16)\.safetensors", name)
        ]
        wanted += plain or half
    return sorted(set(wanted))


def _settings_beside(file: str, names: Iterable[str]) -> list[str]:
    """The file of an adapter's settings in the same folder, where the repository holds one."""
    folder = file.rpartition("/")[0]
    beside = f"{folder}/{ADAPTER_CONFIG}" if folder else ADAPTER_CONFIG
    return [beside] if beside in names else []


@contextmanager
def headers_alone(source: HubSource) -> Iterator[Snapshot]:
    """What :func:`fetch` would bring, without the weights: small files from the Hub, and of each file of
    weights its header, asked for by a range and put into a file of that size that holds nothing else.

    Enough for names, shapes and configurations, and never for a value: the folder is gone with the context.
    """
    from huggingface_hub import HfApi, hf_hub_download, hf_hub_url

    info = ask(source, lambda: HfApi().model_info(source.repo, revision=source.revision, files_metadata=True))
    listed = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    with tempfile.TemporaryDirectory() as place:
        for name in needed(source, listed):
            path = Path(place, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".safetensors"):
                url = hf_hub_url(source.repo, name, revision=info.sha)
                header = ask(source, partial(_header_at, url))
                with path.open("wb") as file:
                    file.write(header)
                    file.truncate(max(len(header), min(listed[name].size or 0, _LARGEST_SPARSE)))
            else:
                got = ask(source, partial(hf_hub_download, source.repo, name, revision=info.sha))
                shutil.copyfile(got, path)
        assert info.sha is not None
        yield Snapshot(info.sha, Path(place), {}, tuple(sorted(listed)))


def _header_at(url: str) -> bytes:
    """The header of a safetensors file with its length before it, by two requests for ranges."""
    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    def part(first: int, last: int) -> bytes:
        headers, found = build_hf_headers() | {"Range": f"bytes={first}-{last}"}, b""
        with get_session().stream("GET", url, headers=headers, follow_redirects=True) as response:
            hf_raise_for_status(response)
            if response.status_code != _PARTIAL:
                raise RefusedError(
                    f"{url} cannot be read in parts; inspect it with --full, which fetches it."
                )
            for block in response.iter_bytes():
                found += block
                if len(found) > last - first:
                    break
        return found[: last - first + 1]

    first = part(0, 7)
    length = int.from_bytes(first, "little")
    return first + (part(8, 7 + length) if 0 < length <= LARGEST_HEADER else b"")


def _refuse_full_disk(source: HubSource, cache: Path, size: int) -> None:
    nearest = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(nearest).free
    if free < size + _SPARE_BYTES:
        raise AuditorError(
            f"{source.repo} takes {size / 2**30:.1f} GiB and {nearest} has {free / 2**30:.1f}; make room or "
            "set HF_HUB_CACHE."
        )
