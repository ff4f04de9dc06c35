"""What the Hub answers in place of a file, as a sentence with the next step and the right exit code: 2 for
what the user has to change (name, token, permission, offline), 5 for what only waiting helps with."""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

from auditor._checkpoint.addresses import HubSource
from auditor._files.places import problem_at
from auditor.errors import AuditorError, UsageError

_T = TypeVar("_T")
_TRIES = 3
# whichever huggingface_hub is built on
_HTTP_CLIENTS = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
_SERVER_ERROR = 500
_TOO_MANY = HTTPStatus.TOO_MANY_REQUESTS
_LONGEST = 200
_TOKEN = "the token of this machine"  # noqa: S105 - a word in sentences
_STEPS = {
    HTTPStatus.UNAUTHORIZED: f"does not accept {_TOKEN} for {{where}} (401): log in again with 'hf auth "
    "login', or correct or unset HF_TOKEN.",
    HTTPStatus.FORBIDDEN: f"does not let {_TOKEN} read {{where}} (403): give the token the permission "
    "to read this repository, or use another one.",
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "cannot be asked for {where}: the proxy in between wants a "
    "name and a password (407); correct HTTPS_PROXY.",
}


def named(source: HubSource) -> str:
    """How sentences call a repository, as ``auditor fetch`` takes it."""
    revision = f"@{source.revision}" if source.revision else ""
    return f"hf://{source.repo}{revision}/{source.file}" if source.file else f"{source.repo}{revision}"


def ask(source: HubSource, question: Callable[[], _T]) -> _T:
    """Ask the Hub, again where it stumbles. Raises :class:`UsageError` or :class:`AuditorError` for every way
    in which it can fail."""
    for attempt in range(1, _TRIES + 1):
        try:
            return question()
        except Exception as error:
            answer = _answer(source, error)
            if answer is None:
                raise
            if isinstance(answer, UsageError) or attempt == _TRIES or _status(error) == _TOO_MANY:
                raise answer from error
        time.sleep(attempt)
    raise AssertionError


def _answer(source: HubSource, error: Exception) -> AuditorError | None:
    """What ``error`` means for the user; None where it is none of the Hub's or the network's."""
    from huggingface_hub import errors

    where, status = named(source), _status(error)
    if isinstance(error, errors.GatedRepoError):
        return UsageError(
            f"{where} is gated: accept its terms on the Hub and log in ('hf auth login' or HF_TOKEN)."
        )
    if isinstance(error, errors.HFValidationError):
        return UsageError(f"{where} is no name of a repository on the Hub, and there is no such folder here.")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return not_here(source, "HF_HUB_OFFLINE is set")
    missing = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError)
    is_missing = isinstance(error, missing) and not isinstance(error, errors.LocalEntryNotFoundError)
    if is_missing or status == HTTPStatus.NOT_FOUND:
        return UsageError(
            f"There is no {where} on the Hub, nor a file of that name here (private ones need a token)."
        )
    if status is not None:
        return _answered(where, status, error)
    if isinstance(error, OSError) and error.filename and (local := problem_at(error)) is not None:
        return local  # the cache's place, not the Hub
    known = isinstance(error, errors.HfHubHTTPError | OSError)
    if not known and type(error).__module__.split(".")[0] not in _HTTP_CLIENTS:
        return None
    return AuditorError(
        f"The Hub did not deliver {where} ({type(error).__name__}); run the same command again, it goes on."
    )


def _answered(where: str, status: int, error: Exception) -> AuditorError:
    """The sentence for an answer with an error's status."""
    if status in _STEPS:
        return UsageError(f"The Hub {_STEPS[HTTPStatus(status)].format(where=where)}{_own_words(error)}")
    if status == _TOO_MANY:
        seconds = str(_header(error, "Retry-After") or "")
        wait = f"{seconds} seconds" if seconds.isdigit() else "some minutes"
        return AuditorError(
            f"The Hub had too many requests from here (429): wait {wait} and run the same command again, it "
            "goes on; with a token ('hf auth login') more are allowed."
        )
    if status >= _SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
        return AuditorError(
            f"The Hub has a problem of its own with {where} ({status}); run the same command again later, it "
            "goes on."
        )
    return UsageError(f"The Hub refuses {where} ({status}); check the name.{_own_words(error)}")


def not_here(source: HubSource, why: str) -> UsageError:
    """The error of a repository that is not in the cache while the network is switched off."""
    return UsageError(
        f"{named(source)} is not in the Hub's cache on this machine, and the network is switched off ({why})"
        f"; run 'auditor fetch {named(source)}' with a network first."
    )


def _response(error: BaseException | None) -> Any:
    """The Hub's answer that an error comes from: its own, or that of its cause."""
    seen = 0
    while error is not None and seen < 10:
        response = getattr(error, "response", None)
        if isinstance(getattr(response, "status_code", None), int):
            return response
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None


def _status(error: Exception) -> int | None:
    response = _response(error)
    return None if response is None or response.status_code < HTTPStatus.BAD_REQUEST else response.status_code


def _header(error: Exception, name: str) -> str | None:
    found = _response(error).headers.get(name)
    return found if isinstance(found, str) else None


def _own_words(error: Exception) -> str:
    """What the Hub says itself, on one line."""
    words = " ".join((_header(error, "X-Error-Message") or "").split())[:_LONGEST]
    return f" It says: {words}" if words else ""
