"""Audits of one file over a base: what was audited, and how strongly, is in report, page and identity."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import auditor
from auditor.errors import UsageError
from auditor.report.words import remarks
from tests.checkpoint.wild.world import flat, settings, world_of_micro, write
from tests.conftest import SMALL, policy_file
from tests.faults.forks import Forks

pytestmark = pytest.mark.usefixtures("nano")


def lora(folder: Path, alpha: float) -> Path:
    """A LoRA of one layer whose strength stands in its metadata."""
    world = world_of_micro()
    layer = world.layer("unet", "attn2.to_k")
    up, down = world.pair(layer, 4)
    named = {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
    meta = settings(r=4, lora_alpha=alpha, target_modules=[layer])
    return write(folder / f"lora-{alpha}.safetensors", named, meta)


def test_the_strength_of_a_lora_is_in_the_report_and_its_replay(tmp_path: Path) -> None:
    policy, out = policy_file(tmp_path, budget=SMALL), tmp_path / "run"
    report = auditor.audit(str(lora(tmp_path, 16)), policy, out, cache=tmp_path / "cache")
    assert report.checkpoint.content == "LoRA of 1 layer of unet; strength 4 (1 layer)"
    assert any("strength 4" in sentence for sentence in remarks(report))
    assert "strength 4" in (out / "report.html").read_text(encoding="utf-8")
    again = auditor.replay(out, samples=4)
    assert again.provenance.replay is not None and again.provenance.replay.succeeded
    with pytest.raises(UsageError, match="not what the run audited"):
        auditor.replay(out, samples=4, checkpoint=str(lora(tmp_path, 4)))


def test_a_lora_of_the_text_encoder_needs_the_bases_put_back(tmp_path: Path) -> None:
    world = world_of_micro()
    named = {}
    for part, end in (("unet", "attn2.to_k"), ("text_encoder", "self_attn.q_proj")):
        layer = world.layer(part, end)
        up, down = world.pair(layer, 4, part)
        named |= {f"{flat(layer, part)}.lora_up.weight": up, f"{flat(layer, part)}.lora_down.weight": down}
        named[f"{flat(layer, part)}.alpha"] = torch.tensor(4.0)
    path = write(tmp_path / "kohya.safetensors", named)
    report = auditor.audit(str(path), policy_file(tmp_path, budget=SMALL), tmp_path / "run")
    assert report.checkpoint.content == "LoRA of 2 layers of text_encoder and unet; strength 1 (2 layers)"
    assert any(control.name == "text encoder" and control.passed is False for control in report.controls)


def test_what_was_chosen_is_in_the_report_and_in_its_command(forks: Forks, tmp_path: Path) -> None:
    world = world_of_micro()
    key = world.layer("unet", "attn2.to_k")
    tensors = {f"{key}.weight": world.random(*world.shape(key)), "v_pred": torch.empty(0)}
    path = write(tmp_path / "delta.safetensors", tensors)
    arguments = [
        "audit",
        str(path),
        "--policy",
        str(policy_file(tmp_path, budget=SMALL)),
        "--out",
        str(tmp_path / "run"),
    ]
    refused = forks.call(*arguments)
    assert refused.returncode == 4 and "--prediction" in refused.stderr
    chosen = ["--prediction", "epsilon", "--format", "json"]
    taken = forks.call(*arguments, *chosen)
    report = json.loads(taken.stdout)
    assert report["checkpoint"]["chosen"] == {"prediction": "epsilon"}
    assert "--prediction epsilon" in report["provenance"]["command"]
    html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "audited is what was chosen: prediction = epsilon" in html
