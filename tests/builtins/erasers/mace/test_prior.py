"""The prior's Gram matrix and where it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._diffusion.model import DiffusionModel
from auditor.builtins.erasers.mace.prior import REFERENCE_ROWS, caption_gram, read_captions
from auditor.errors import UsageError

CAPTIONS = [f"a photo of {name}" for name in ("a ship", "a dog", "a person")] * 30 + ["the sky"] * 7


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return load_model(open_checkpoint("micro"))


def test_it_is_the_sum_over_every_position_of_every_caption(model: DiffusionModel) -> None:
    found = caption_gram(model, CAPTIONS)
    states = model.text_states(CAPTIONS).double().flatten(0, 1)
    literal = sum(torch.outer(row, row) for row in states)
    assert isinstance(literal, torch.Tensor)
    assert (found.matrix - literal).abs().max() <= 1e-9 * literal.abs().max()
    assert found.rows == len(states)
    assert torch.allclose(found.scaled() / REFERENCE_ROWS, literal / len(states))


def test_no_captions_weigh_nothing(model: DiffusionModel) -> None:
    assert not bool(caption_gram(model, []).scaled().any())


def test_it_is_read_back_for_the_same_captions_in_any_order_and_made_anew_for_others(
    model: DiffusionModel, tmp_path: Path
) -> None:
    first = caption_gram(model, CAPTIONS, tmp_path)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    again = caption_gram(model, CAPTIONS[::-1], tmp_path)
    assert torch.equal(first.matrix, again.matrix) and first == again.__class__(
        first.matrix, again.rows, again.captions, again.encoder
    )
    assert file.stat().st_mtime_ns == written
    caption_gram(model, CAPTIONS[:-1], tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    with torch.no_grad():
        other = load_model(open_checkpoint("micro"))
        next(other.text_encoder.parameters()).add_(0.01)
    caption_gram(other, CAPTIONS, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    padded = load_model(open_checkpoint("micro"))
    padded.tokenizer.pad_token = "a</w>"
    caption_gram(padded, CAPTIONS, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("damage", ["cut", "values", "other"])
def test_a_damaged_cache_is_said(model: DiffusionModel, tmp_path: Path, damage: str) -> None:
    caption_gram(model, CAPTIONS, tmp_path)
    (file,) = tmp_path.iterdir()
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    elif damage == "other":
        caption_gram(model, CAPTIONS[:3], tmp_path)
        other = next(path for path in tmp_path.iterdir() if path != file)
        other.replace(file)
    else:
        with safe_open(file, "pt") as opened:
            metadata, matrix = opened.metadata(), opened.get_tensor("gram")
        save_file({"gram": -matrix}, file, metadata=metadata)
    with pytest.raises(UsageError, match="is not the prior that its name says; delete it"):
        caption_gram(model, CAPTIONS, tmp_path)


def test_captions_are_lines(tmp_path: Path) -> None:
    file = tmp_path / "captions.txt"
    file.write_text("a dog\n\n  a ship \n", encoding="utf-8")
    assert read_captions(file) == ["a dog", "a ship"]
    file.write_text("\n")
    with pytest.raises(UsageError, match="holds no captions"):
        read_captions(file)
    with pytest.raises(UsageError, match="Cannot read the captions"):
        read_captions(tmp_path / "none.txt")
