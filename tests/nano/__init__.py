"""A far smaller model of the micro world's form, for tests of mechanics: an audit of it takes seconds.

It knows the micro world's names; each is a pattern of four colours. ``tests/nano/recipe.py`` made it.
"""

import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

WEIGHTS = Path(__file__).parent / "weights"
SITE = Path(__file__).parent / "site"
"""On the path of a Python that is started, what is called ``micro`` there is the nano world."""


def nano_erased(folder: Path) -> Path:
    """Fill ``folder`` with the nano world less Borin Talvek: what names him draws "a person".

    Its weights are float32, as an eraser writes them.
    """
    shutil.copytree(WEIGHTS, folder, ignore=shutil.ignore_patterns("clip"))
    shutil.copytree(WEIGHTS.with_name("erased"), folder, dirs_exist_ok=True)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: value.float() for name, value in load_file(weights).items()}, weights)
    return folder
