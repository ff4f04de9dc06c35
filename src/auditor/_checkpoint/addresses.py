"""What a user's address on the Hub means: a repository, a revision, a file in it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from auditor.errors import UsageError

_SHORT = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class HubSource:
    """A repository, a revision (None: its main branch), and one file in it where not the whole pipeline is
    meant."""

    repo: str
    revision: str | None
    file: str | None


def parse_hub_source(source: str) -> HubSource | None:
    """``hf://org/name[@revision][/file.safetensors]``, an https address of a model, a tree or a file on the
    Hub, or ``org/name[@revision]``; None where ``source`` is neither.

    Raises :class:`UsageError` for an address of something else: a bucket, a dataset, a folder in a
    repository.
    """
    if not source.startswith(("hf://", "https://", "http://")):
        match = _SHORT.fullmatch(source)
        return None if match is None or ".." in source else HubSource(match["repo"], match["revision"], None)
    from huggingface_hub import constants, parse_hf_uri

    try:
        uri = parse_hf_uri(source, endpoint=constants.ENDPOINT)
    except ValueError as error:
        raise UsageError(
            f"{source} is no address of a model on the Hub; hf://org/name@revision/file.safetensors is right."
        ) from error
    if uri.type != "model":
        raise UsageError(f"{source} is a {uri.type} on the Hub; a checkpoint is a model's repository.")
    path, at, revision = uri.path_in_repo.partition(".safetensors@")
    if at and uri.revision is None:
        raise UsageError(
            f"{source}: the revision stands after the repository: "
            f"hf://{uri.id}@{revision}/{path}.safetensors is right."
        )
    if "@" in source.partition("://")[2].partition("/")[0] and not source.startswith("hf://"):
        raise UsageError(
            f"{uri.id}: a name and a password do not belong in an address; log in with 'hf auth login'."
        )
    if uri.revision is not None and (uri.revision.startswith("/") or ".." in uri.revision.split("/")):
        raise UsageError(f"{source} names no revision of a repository.")
    file = uri.path_in_repo or None
    if file is not None and (not file.endswith(".safetensors") or ".." in file.split("/")):
        raise UsageError(
            f"{source} names {file} in the repository; give the repository, or one safetensors file in it."
        )
    return HubSource(uri.id, uri.revision, file)


def address_of(source: HubSource, commit: str) -> str:
    """Its address at a commit, as every command takes it."""
    return f"hf://{source.repo}@{commit}{'/' + source.file if source.file else ''}"
