"""Where a file lies in its repository: what a CI shows findings by."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CHECKOUTS = ("GITHUB_WORKSPACE", "CI_PROJECT_DIR")
"""Variables in which a CI names the folder that it checked the repository out to."""


def path_in_repository(file: Path) -> str:
    """``file`` relative to the root of its repository: the CI's checkout, else the folder with ``.git`` above
    it, else the working folder. Its bare name where it lies below none of these."""
    for root in _roots(file):
        for place, above in ((_absolute(file), _absolute(root)), (file.resolve(), root.resolve())):
            if place != above and place.is_relative_to(above):
                return place.relative_to(above).as_posix()
    return file.name


def _roots(file: Path) -> Iterator[Path]:
    for name in CHECKOUTS:
        if Path(os.environ.get(name, "")).is_absolute():
            yield Path(os.environ[name])
    for place in (_absolute(file), file.resolve()):
        for folder in place.parents:
            with suppress(OSError):  # a folder above that may not be looked into
                if (folder / ".git").exists():
                    yield folder
                    break
    yield Path.cwd()


def _absolute(path: Path) -> Path:
    """Without ``..``, and with links as they are named: a policy that is a link lies where the link does."""
    return Path(os.path.normpath(path.absolute()))
