"""Checkpoints on the Hub: the commit first, then only the files that loading reads, each checked against what
the Hub says of it.

Tokens come from where ``huggingface_hub`` keeps them (``HF_TOKEN``, ``hf auth login``) and are never read,
written or logged here.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from auditor._checkpoint.adapters import ADAPTER_CONFIG, ADAPTER_FILES
from auditor._checkpoint.addresses import HubSource
from auditor._checkpoint.folder import LICENCES
from auditor._files.places import problem_at, sentence_at
from auditor._files.safetensors_header import LARGEST_HEADER
from auditor._files.whole_files import write_whole
from auditor.errors import AuditorError, RefusedError, UsageError
from auditor.families.stable_diffusion.components import WEIGHTS

_LOG = logging.getLogger(__name__)
_TRIES = 3
# whichever huggingface_hub is built on
_HTTP_CLIENTS = (
    "httpx",
    "httpx2",
    "httpcore",
    "httpcore2",
    "requests",
    "urllib3",
)
_SPARE_BYTES = 256 * 2**20
_LARGEST_SPARSE = 2**40
_PARTIAL = 206  # an answer with the asked range alone
_BESIDE = ("tokenizer", "scheduler", *WEIGHTS)


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
    return _from_cache(source) if offline else _from_hub(source)


def _from_hub(source: HubSource) -> Snapshot:
    from huggingface_hub import HfApi, constants, hf_hub_download

    info = _ask(
        source, lambda: HfApi().model_info(source.repo, revision=source.revision, files_metadata=True)
    )
    listed = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    names = _needed(source, listed)
    _refuse_full_disk(source, Path(constants.HF_HUB_CACHE), sum(listed[name].size or 0 for name in names))
    expected, folder = {}, None
    for name in names:
        path = Path(_ask(source, lambda name=name: hf_hub_download(source.repo, name, revision=info.sha)))
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
    _name(folder.parent.parent / "refs" / (source.revision or "main"), info.sha)
    return Snapshot(info.sha, folder, expected, tuple(sorted(listed)))


def _name(reference: Path, commit: str) -> None:
    """Now that all of it is there, and not before, the revision's name leads to it without a network.

    Where the cache cannot be written the commit alone does.
    """
    try:
        if not reference.is_file() or reference.read_text(encoding="utf-8", errors="replace") != commit:
            write_whole(reference, commit.encode())
    except OSError as error:
        _LOG.warning("%s; offline, name the commit %s", sentence_at(error, reference), commit)


def _from_cache(source: HubSource) -> Snapshot:
    from huggingface_hub import try_to_load_from_cache

    first = source.file or "model_index.json"
    found = try_to_load_from_cache(source.repo, first, revision=source.revision or "main")
    if not isinstance(found, str):
        raise UsageError(
            f"{source.repo} is not in the Hub's cache on this machine; run 'auditor fetch {source.repo}' "
            "with a network first."
        )
    folder = Path(found).parents[len(PurePosixPath(first).parts) - 1]
    names = _needed(
        source, (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    )
    # in the cache a file is a link to a blob that is named by the digest the Hub gave it
    return Snapshot(
        folder.name,
        folder,
        {name: blob.name for name in names if _is_digest((blob := (folder / name).resolve()).name)},
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


def _needed(source: HubSource, listed: Iterable[str]) -> list[str]:
    """The files that loading reads, card and licence: never a pickle, never the safety checker, one
    precision of the weights."""
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
    wanted = [
        "model_index.json",
        *(name for name in names if name == "README.md" or name.split(".")[0].upper() in LICENCES),
    ]
    wanted += [
        name
        for name in names
        if name.split("/")[0] in _BESIDE and name.count("/") == 1 and name.endswith((".json", ".txt"))
    ]
    for component, stem in WEIGHTS.items():
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

    info = _ask(
        source, lambda: HfApi().model_info(source.repo, revision=source.revision, files_metadata=True)
    )
    listed = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    with tempfile.TemporaryDirectory() as place:
        for name in _needed(source, listed):
            path = Path(place, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".safetensors"):
                url = hf_hub_url(source.repo, name, revision=info.sha)
                header = _ask(source, lambda url=url: _header_at(url))
                with path.open("wb") as file:
                    file.write(header)
                    file.truncate(max(len(header), min(listed[name].size or 0, _LARGEST_SPARSE)))
            else:
                got = _ask(source, lambda name=name: hf_hub_download(source.repo, name, revision=info.sha))
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


def _ask(source: HubSource, question: Any) -> Any:
    """Ask the Hub, again where it stumbles; every way in which it can fail becomes one of our sentences."""
    from huggingface_hub import errors

    where = f"{source.repo}{'@' + source.revision if source.revision else ''}"
    for attempt in range(1, _TRIES + 1):
        try:
            return question()
        except errors.GatedRepoError as error:
            raise UsageError(
                f"{where} is gated: accept its terms on the Hub and log in ('hf auth login' or HF_TOKEN)."
            ) from error
        except (
            errors.RepositoryNotFoundError,
            errors.RevisionNotFoundError,
            errors.EntryNotFoundError,
        ) as error:
            if isinstance(error, errors.LocalEntryNotFoundError):
                problem: Exception = error
            else:
                raise UsageError(
                    f"There is no {where} on the Hub, nor a file of that name here (private ones need a "
                    "token)."
                ) from error
        except errors.HFValidationError as error:
            raise UsageError(
                f"{where} is no name of a repository on the Hub, and there is no such folder here."
            ) from error
        except Exception as error:
            if (
                not isinstance(error, errors.HfHubHTTPError | OSError)
                and type(error).__module__.split(".")[0] not in _HTTP_CLIENTS
            ):
                raise
            if isinstance(error, OSError) and error.filename and (local := problem_at(error)) is not None:
                raise local from error  # the cache's place, not the Hub
            problem = error
        if attempt < _TRIES:
            time.sleep(attempt)
    raise AuditorError(
        f"The Hub did not deliver {where} ({type(problem).__name__}); run the same command again, it goes on."
    ) from problem
