"""A far smaller model of the micro world's form, for tests of mechanics: an audit of it takes seconds.

It knows the micro world's names; each is a pattern of four colours. ``tests/nano/recipe.py`` made it.
"""

import shutil
from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
SITE = Path(__file__).parent / "site"
"""On the path of a Python that is started, what is called ``micro`` there is the nano world."""


def nano_erased(folder: Path) -> Path:
    """Fill ``folder`` with the nano world less Borin Talvek: what names him draws "a person"."""
    shutil.copytree(WEIGHTS, folder, ignore=shutil.ignore_patterns("clip"))
    return Path(shutil.copytree(WEIGHTS.with_name("erased"), folder, dirs_exist_ok=True))
