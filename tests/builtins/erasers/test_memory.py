"""Erasers that run out of memory take fewer rows or concepts at once, and come to the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._erase.erase import erase
from auditor.builtins.erasers.mace.options import MaceOptions
from auditor.policy import Policy
from tests.conftest import short_policy
from tests.diffusion.narrow import narrow

pytestmark = pytest.mark.usefixtures("nano")

UNET = Path("unet/diffusion_pytorch_model.safetensors")
DRAWN = {"size": 32, "sampling_steps": 3, "sampling_guidance": 4.0}
ESD = DRAWN | {"steps": 3, "batch": 4, "pool": 4, "refresh": 2, "learning_rate": 1e-4}
MACE = DRAWN | {"lambda_identity": 10.0, "preserve": "micro-people", "images": 2, "steps": 3, "batch": 2}


def two() -> Policy:
    """Two people to erase."""
    person = {"domain": "people", "mapping": "a person", "prompts": "paper-people"}
    return short_policy(erase=[person | {"name": name} for name in ("Borin Talvek", "Nuria Pellow")])


def erased(eraser: str, options: dict[str, Any], out: Path, room: int | None) -> tuple[Path, list[int]]:
    """What ``eraser`` makes of the nano world on a card that holds so many rows, and how many its denoiser
    was given at once."""
    opened = open_checkpoint("micro")
    model = load_model(opened, "float32")
    first = narrow(model.unet.conv_in, room or 1000)
    return erase((opened, model), two(), eraser, out, options=options), first.asked


@pytest.mark.parametrize(("eraser", "options", "room"), [("esd", ESD, 4), ("mace", MACE, 2)])
def test_it_comes_to_the_same_weights_on_a_small_card(
    tmp_path: Path, eraser: str, options: dict[str, Any], room: int
) -> None:
    (whole, _), (parted, asked) = (
        erased(eraser, options, tmp_path / str(each), each) for each in (None, room)
    )
    assert max(asked) == 8 and sum(rows > room for rows in asked) >= 2
    before, after = load_file(whole / UNET), load_file(parted / UNET)
    assert max(float((value - after[name]).abs().max()) for name, value in before.items()) < 1e-4
    kept = [json.loads((folder / "erasure.json").read_text())["notes"] for folder in (whole, parted)]
    assert [each.get("rows_at_once") for each in kept] == [None, 2 if eraser == "esd" else None]


@pytest.mark.parametrize(
    ("given", "free", "bytes_"),
    [(None, None, 8 * 2**30), (None, 60 * 2**30, 30 * 2**30), (2.0, None, 2**31), (2.0, 60 * 2**30, 2**31)],
)
def test_a_step_may_take_half_of_what_is_free_on_a_gpu(
    given: float | None, free: int | None, bytes_: int
) -> None:
    assert MaceOptions(memory_gib=given).memory(free) == bytes_
