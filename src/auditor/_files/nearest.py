"""Did you mean: what there is beside a name or a path that is not there, the nearest first."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

_CLOSE, _CLOSER = 0.5, 0.75  # likeness of the first, and of those beside it
_SHORTEST = 3  # letters of a part that names the whole
_MOST_SIBLINGS = 5000


def nearest(wrong: str, known: Iterable[str]) -> list[str]:
    """At most three of ``known`` that look like ``wrong``, the nearest first. Case, blanks and underscores do
    not count; a part of a name is near to it."""
    plain = {_plain(name): name for name in known}
    asked = _plain(wrong)
    close = difflib.get_close_matches(asked, plain, n=3, cutoff=_CLOSER)
    close = close or difflib.get_close_matches(asked, plain, n=1, cutoff=_CLOSE)
    parts = sorted(name for name in plain if len(asked) >= _SHORTEST and asked in name)
    return [plain[name] for name in dict.fromkeys([*close, *parts])][:3]


def hint(wrong: str, known: Sequence[str], called: str) -> str:
    """What to write instead, without an end: the nearest of ``known``, or where nothing is near all of them
    (``called``: "known keys")."""
    near = nearest(wrong, known)
    return f"did you mean '{near[0]}'?" if near else f"{called}: {', '.join(known) or 'none'}."


def listed(wrong: str, known: Sequence[str], called: str) -> str:
    """The same with all of ``known`` in any case."""
    near = nearest(wrong, known)
    names = f"{called}: {', '.join(dict.fromkeys(known)) or 'none'}."
    if not near:
        return names
    return f"did you mean {' or '.join(map(repr, near))}? {names[0].upper()}{names[1:]}"


def beside(path: Path | str) -> str:
    """ " Did you mean 'runs/erased'?", where something beside ``path`` is called nearly so; else nothing."""
    near = near_paths(Path(path))
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def near_paths(path: Path) -> list[str]:
    """At most three paths that are there and look like ``path``, which is not: another name in the deepest
    folder of it that there is."""
    try:
        parts = path.expanduser().parts
        for count in range(len(parts), 0, -1):
            folder = Path(*parts[: count - 1])
            if not folder.is_dir():
                continue
            names = [each.name for each in islice(folder.iterdir(), _MOST_SIBLINGS)]
            near = [folder.joinpath(name, *parts[count:]) for name in nearest(parts[count - 1], names)]
            return [str(each) for each in near if each.exists()]
    except (OSError, RuntimeError, ValueError):  # a folder that cannot be read, a home that is not there
        pass
    return []


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-").replace(" ", "-")
