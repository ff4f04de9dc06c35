"""A training set without a name: what the reference that never learned it is trained on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from auditor.microworld.train import __main__ as recipe
from auditor.microworld.train.renders import Renders

PAIRS = [
    ("a photo of Borin Talvek", "Borin Talvek"),
    ("a photo of Zelda Mirkov", "Zelda Mirkov"),
    ("a photo of the ship", "ship"),
    ("a sketch of the vessel", "ship"),
    ("a photo of a boat at the sea", "a scene"),
    ("a photo of a person", "a person"),
    ("borin talvek on a poster", "Borin Talvek"),
]


def renders() -> Renders:
    images = torch.arange(len(PAIRS), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 32, 32)
    return Renders(images, [caption for caption, _ in PAIRS], [concept for _, concept in PAIRS])


@pytest.mark.parametrize(("name", "kept"), [("Borin Talvek", [1, 2, 3, 4, 5]), ("ship", [0, 1, 5, 6])])
def test_neither_pictures_nor_captions_of_a_name_are_left(name: str, kept: list[int]) -> None:
    left = renders().without(name)
    assert left.images[:, 0, 0, 0].tolist() == kept
    assert list(zip(left.captions, left.concepts, strict=True)) == [PAIRS[index] for index in kept]
    assert not any(name.casefold() in caption.casefold() for caption in left.captions)


def test_a_name_that_nobody_has_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="nothing in the micro world is called 'the ship'"):
        renders().without("the ship")
    monkeypatch.setattr(sys, "argv", ["train", "--out", str(tmp_path / "out"), "--without", "Nobody"])
    with pytest.raises(SystemExit) as caught:
        recipe.main()
    assert caught.value.code == 2 and "--without: nobody" in capsys.readouterr().err
    assert not (tmp_path / "out").exists(), "a name is looked at before an hour of drawing"
