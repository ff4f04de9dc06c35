"""A pickle becomes safetensors whole, or a word says what it holds; never a part of it in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from auditor._checkpoint.conversion import convert
from auditor._checkpoint.unpickling import main
from auditor.errors import RefusedError

pytestmark = pytest.mark.usefixtures("nano")

ONE, TWO = torch.ones(2, 2).triu(), torch.ones(3)
PARTS = "text_encoder,unet,vae"


@pytest.mark.parametrize(
    ("value", "key", "names"),
    [
        ({"a.weight": ONE}, None, {"a.weight"}),
        ({"state_dict": {"a.weight": ONE}, "epoch": 3}, None, {"a.weight"}),
        ({"model": {"state_dict": {"a.weight": ONE}}}, None, {"a.weight"}),
        (
            {"unet": {"a.weight": ONE}, "text_encoder": {"b.weight": TWO}},
            None,
            {"unet.a.weight", "text_encoder.b.weight"},
        ),
        ({"state_dict": {"a.weight": ONE}, "ema": {"a.weight": TWO}}, "state_dict", {"a.weight"}),
        ({"a.b": {"a.weight": ONE}, "c": {"a.weight": TWO}}, "a.b", {"a.weight"}),
        ({"x.lora_up.weight": ONE, "x.alpha": 1.0}, None, {"x.lora_up.weight", "x.alpha"}),
        ({"one": {"two": {"a.weight": ONE}}}, "one/two", {"a.weight"}),
    ],
)
def test_all_of_it_is_written(tmp_path: Path, value: Any, key: str | None, names: set[str]) -> None:
    torch.save(value, tmp_path / "x.ckpt")
    main(str(tmp_path / "x.ckpt"), str(tmp_path / "x.safetensors"), PARTS, *(key.split("/") if key else []))
    assert load_file(tmp_path / "x.safetensors").keys() == names


@pytest.mark.parametrize(
    ("value", "key", "words"),
    [
        ({"unet": {"a.weight": ONE}, "step": TWO}, None, r"several sets of tensors \(step, unet\).*--key"),
        ({"state_dict": {"a.weight": ONE}, "ema": {"a.weight": TWO}}, None, r"\(ema, state_dict\).*--key"),
        ({"lora": {"a.weight": ONE}, "text": {"deep": {"b": TWO}}}, None, "several sets of tensors"),
        ({"epoch": 3}, None, "holds no tensors"),
        ({"state_dict": {"a": ONE}}, "ema", "has no key ema"),
        ({"r": 4, "lora_alpha": 16, "state_dict": {"a": ONE}}, None, r"the number r, which says how"),
        ({"state_dict": {"a": ONE}, "v_pred": True}, None, r"the number v_pred, which says how"),
        ({1: ONE, "1": TWO}, None, "a key that is no text"),
        ({"a b": ONE}, None, "no names of their own"),
        ({"a": torch.zeros(1).expand(10**9)}, None, "many times what it holds"),
        ({"a": ONE, "loss": np.float64(0.5)}, None, r"more than tensors \(numpy\."),
    ],
)
def test_what_is_meant_has_to_be_said(tmp_path: Path, value: Any, key: str | None, words: str) -> None:
    torch.save(value, tmp_path / "x.ckpt")
    with pytest.raises(SystemExit, match=words) as caught:
        main(str(tmp_path / "x.ckpt"), str(tmp_path / "x.safetensors"), PARTS, *([key] if key else []))
    assert "\n" not in str(caught.value) and not (tmp_path / "x.safetensors").exists()


def test_it_is_done_in_a_process_of_its_own(tmp_path: Path) -> None:
    torch.save({"one": {"two": {"a.weight": ONE}}, "other": {"b": TWO}}, tmp_path / "x.ckpt")
    with pytest.raises(
        RefusedError, match=r"was not converted: it holds several sets of tensors \(one, other\)"
    ):
        convert(tmp_path / "x.ckpt", tmp_path / "x.safetensors")
    convert(tmp_path / "x.ckpt", tmp_path / "x.safetensors", "one/two")
    assert load_file(tmp_path / "x.safetensors").keys() == {"a.weight"}
