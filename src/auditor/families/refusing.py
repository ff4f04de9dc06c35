"""Whatever a library raises of a checkpoint's files, as one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from auditor.errors import ENDINGS, AuditorError, RefusedError, said


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Whatever a hostile configuration makes the libraries raise becomes a :class:`RefusedError` of one
    sentence."""
    try:
        yield
    except (AuditorError, *ENDINGS):
        raise
    except BaseException as error:  # a library in Rust that panics raises no Exception
        reason = (said(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise RefusedError(f"{what}: {reason}") from error
