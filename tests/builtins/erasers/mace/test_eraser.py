"""MACE as its users meet it: what it writes, that it goes on, what can be added later, and what it
refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.admit import Form
from auditor._checkpoint.load import load_model
from auditor._diffusion.closed_form import gram
from auditor._erase.erase import erase, plan_erasure
from auditor._files.bundled import micro_world
from auditor._files.images import from_png, to_png
from auditor.builtins.erasers.mace import preserved
from auditor.builtins.erasers.mace.eraser import Mace
from auditor.builtins.erasers.mace.job import Job
from auditor.builtins.erasers.mace.kept import ConceptFolder, file_name, lora_of
from auditor.builtins.erasers.mace.options import MaceOptions
from auditor.builtins.erasers.mace.preserved import weights_of_priors
from auditor.builtins.erasers.mace.prompts import marks
from auditor.builtins.masks.simple import AttentionMasks
from auditor.errors import AuditorError, UsageError
from auditor.families.stable_diffusion.family import STABLE_DIFFUSION
from auditor.plugin.contracts import Erasure, MaskRequest
from auditor.policy import Policy
from auditor.policy.concepts.templates import ERASURE_TEMPLATES
from tests.conftest import short_policy

UNET = Path("unet/diffusion_pytorch_model.safetensors")
QUICK: dict[str, Any] = {
    "lambda_identity": 10.0,
    "preserve": "micro-people",
    "images": 2,
    "steps": 3,
    "learning_rate": 5e-3,
    "batch": 2,
    "size": 32,
    "sampling_steps": 3,
    "sampling_guidance": 4.0,
}
ONE, TWO, THREE = "Borin Talvek", "Nuria Pellow", "Imka Soren"


def erasing(*names: str, **changes: Any) -> Policy:
    return short_policy(
        erase=[
            {"name": name, "domain": "people", "mapping": "a person", "prompts": "paper-people"} | changes
            for name in names
        ]
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people erased."""
    return erase("micro", erasing(ONE, TWO), "mace", tmp_path_factory.mktemp("two") / "erased", options=QUICK)


def notes(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "erasure.json").read_text(encoding="utf-8"))["notes"]
    return found


# -- what is written -----------------------------------------------------------------------------------------


def test_its_loras_are_diffusers_loras(two: Path) -> None:
    """Over refined weights, a concept's LoRA file gives W' + dW."""
    file = ConceptFolder(two / "erasure", ONE).path("loras")
    parts = lora_of(load_file(file))
    pipeline = StableDiffusionPipeline.from_pretrained(micro_world(), safety_checker=None)
    before = {
        name: weight.detach().clone() for name, weight in STABLE_DIFFUSION.projections(pipeline.unet).items()
    }
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    after = STABLE_DIFFUSION.projections(pipeline.unet)
    assert len(after) == len(parts) == len(before)
    for name, weight in after.items():
        part = parts[name.removesuffix(".weight")]
        torch.testing.assert_close(weight, before[name] + part.up @ part.down, atol=1e-5, rtol=1e-5)


def test_the_result_is_the_equation_of_what_it_kept(two: Path) -> None:
    """Refinement and fusion again from the files, row by row in float64."""
    model = load_model(open_checkpoint("micro"))
    options = MaceOptions.model_validate(QUICK)
    folders = [ConceptFolder(two / "erasure", name) for name in (ONE, TWO)]
    grams, loras = [], []
    for folder in folders:
        kept_grams, kept_lora = folder.load("grams"), folder.load("loras")
        assert kept_grams is not None and kept_lora is not None
        grams.append(kept_grams[0])
        loras.append(lora_of(kept_lora[0]))
    own = model.text_states([template.format(ONE) for template in ERASURE_TEMPLATES]).flatten(0, 1)
    assert torch.allclose(grams[0]["own"], gram(own))
    policy = erasing(ONE, TWO)
    job = Job(options, Mace(options).parts()[0], Erasure(model, policy.erase, policy.retain, 0))
    prior = preserved.prior(job, {})
    eye = options.lambda_identity * torch.eye(len(prior["fusion"]), dtype=torch.float64)
    mapping, aligned, total = (sum(each[key] for each in grams) for key in ("mapping", "aligned", "own"))
    factor = (mapping + prior["refinement"] + eye) @ torch.linalg.inv(aligned + prior["refinement"] + eye)
    erased = load_file(two / UNET)
    for name, weight in model.projections().items():
        layer, w = name.removesuffix(".weight"), weight.double()
        seen = sum(
            (w @ factor + lora[layer].up.double() @ lora[layer].down.double()) @ each["own"]
            for lora, each in zip(loras, grams, strict=True)
        )
        literal = (seen + w @ prior["fusion"] + w @ factor @ eye) @ torch.linalg.inv(
            total + prior["fusion"] + eye
        )
        assert (erased[name] - literal).abs().max() <= 1e-6 * literal.abs().max()


def test_it_says_where_it_comes_from(two: Path) -> None:
    found = json.loads((two / "erasure.json").read_text(encoding="utf-8"))
    assert found["base"]["digest"] == open_checkpoint("micro").digest
    assert [concept["name"] for concept in found["erased"]] == [ONE, TWO]
    assert found["notes"]["prior"]["weights"]["refinement"]["first"] == 1e-4
    assert found["notes"]["loras"].keys() == {ONE, TWO}
    assert all(name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")) for name in found["changed"])
    assert not (two / "erasure" / "images").exists() and not (two / "auditor-erasure").exists()
    assert "auditor erase" in (two / "README.md").read_text(encoding="utf-8")


def test_the_bases_licence_goes_along(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(micro_world(), base)
    (base / "README.md").write_text("---\nlicense: creativeml-openrail-m\n---\n# Base\n", encoding="utf-8")
    (base / "LICENSE.md").write_text("the terms", encoding="utf-8")
    out = erase(str(base), erasing(ONE), "mace", tmp_path / "out", options=QUICK | {"lora": False})
    assert (out / "LICENSE.md").read_text(encoding="utf-8") == "the terms"
    assert 'license: "creativeml-openrail-m"' in (out / "README.md").read_text(encoding="utf-8")
    assert (
        json.loads((out / "erasure.json").read_text(encoding="utf-8"))["base"]["licence"]
        == "creativeml-openrail-m"
    )


def test_only_what_changed_can_be_saved_and_is_the_same_checkpoint(two: Path, tmp_path: Path) -> None:
    out = erase("micro", erasing(ONE, TWO), "mace", tmp_path / "delta", options=QUICK, save="delta")
    file = out / "unet-changed.safetensors"
    assert {path.name for path in out.iterdir()} == {
        "unet-changed.safetensors",
        "erasure.json",
        "erasure",
        "README.md",
    }
    assert load_file(file).keys() == load_model(open_checkpoint("micro")).projections().keys()
    opened = open_checkpoint(str(file), base=open_checkpoint("micro"))
    assert opened.form is Form.DELTA
    whole = load_file(two / UNET)
    for name, value in load_model(opened).unet.state_dict().items():
        assert torch.equal(value, whole[name])


def test_images_can_be_kept_and_masked_by_hand(tmp_path: Path) -> None:
    first = erase(
        "micro",
        erasing(ONE),
        "mace",
        tmp_path / "first",
        options=QUICK | {"keep_images": True, "masks": {"use": "none"}},
    )
    kept = first / "erasure" / "images" / file_name(ONE)
    assert sorted(path.name for path in kept.glob("*.png")) == [
        "00.mask.png",
        "00.png",
        "01.mask.png",
        "01.png",
    ]
    assert from_png((kept / "00.png").read_bytes()).shape == (3, 32, 32)
    masks = tmp_path / "masks" / ONE
    masks.mkdir(parents=True)
    half = torch.zeros(3, 32, 32, dtype=torch.uint8)
    half[:, :, :16] = 255
    for name in ("00.png", "01.png"):
        (masks / name).write_bytes(to_png(half))
    by_hand = QUICK | {
        "keep_images": True,
        "masks": {"use": "folder", "options": {"folder": str(tmp_path / "masks")}},
    }
    second = erase("micro", erasing(ONE), "mace", tmp_path / "second", options=by_hand)
    tensors = load_file(ConceptFolder(second / "erasure", ONE).path("images"))
    assert torch.equal(tensors["masks"][0], (torch.arange(8) < 4).float().expand(8, 8))
    assert not torch.equal(
        load_file(first / UNET)["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"],
        load_file(second / UNET)["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"],
    )


# -- going on, adding, taking away ---------------------------------------------------------------------------


def test_an_erasure_that_was_killed_goes_on_and_ends_the_same(two: Path, tmp_path: Path) -> None:
    """One concept at a time, killed after the first LoRA was written; its file is not written again."""
    out, slow = tmp_path / "out", QUICK | {"memory_gib": 1e-6, "steps": 40}
    script = (
        "import sys, json\nfrom pathlib import Path\nfrom auditor._erase.erase import erase\nfrom "
        "auditor.policy import Policy\n"
        "erase('micro', Policy.model_validate_json(sys.argv[1]), 'mace', Path(sys.argv[2]), "
        "options=json.loads(sys.argv[3]))\n"
    )
    arguments = [erasing(ONE, TWO).model_dump_json(), str(out), json.dumps(slow)]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    part = tmp_path / ".out.part"
    first = ConceptFolder(part / "erasure", ONE).path("loras")
    deadline = time.monotonic() + 120
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (
        first.exists()
        and not out.exists()
        and not ConceptFolder(part / "erasure", TWO).path("loras").exists()
    )
    written = first.stat().st_mtime_ns
    stages: list[tuple[str, int, int]] = []
    erase("micro", erasing(ONE, TWO), "mace", out, options=slow, on_step=lambda *step: stages.append(step))
    assert max(steps for stage, _, steps in stages if stage == "LoRA") == 40, "only the second was trained"
    assert not [stage for stage in stages if stage[0] == "images"], "images were drawn again"
    assert ConceptFolder(out / "erasure", ONE).path("loras").stat().st_mtime_ns == written
    assert not part.exists()
    at_once = erase("micro", erasing(ONE, TWO), "mace", tmp_path / "at-once", options=slow)
    assert (out / UNET).read_bytes() == (at_once / UNET).read_bytes()


def interrupted(out: Path, policy: Policy, options: dict[str, Any]) -> Path:
    """What is left of an erasure that was stopped while its second LoRA was trained."""

    def stop(stage: str, step: int, steps: int) -> None:
        if stage == "LoRA" and step > steps // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        erase("micro", policy, "mace", out, options=options, on_step=stop)
    part = out.with_name(f".{out.name}.part")
    assert ConceptFolder(part / "erasure", ONE).path("loras").exists()
    return part


def test_what_no_longer_fits_is_made_again(tmp_path: Path) -> None:
    """The captions changed in between: the first LoRA belongs to other refined weights."""
    captions, alone = tmp_path / "captions.txt", QUICK | {"memory_gib": 1e-6}
    captions.write_text("a dog\n", encoding="utf-8")
    interrupted(tmp_path / "out", erasing(ONE, TWO), alone | {"captions": str(captions)})
    captions.write_text("a dog\na ship\n", encoding="utf-8")
    out = erase(
        "micro", erasing(ONE, TWO), "mace", tmp_path / "out", options=alone | {"captions": str(captions)}
    )
    fresh = erase(
        "micro", erasing(ONE, TWO), "mace", tmp_path / "fresh", options=alone | {"captions": str(captions)}
    )
    assert (out / UNET).read_bytes() == (fresh / UNET).read_bytes()
    assert "trained_on" not in notes(out)["loras"][ONE]


def test_what_still_fits_survives_another_command_and_what_is_not_asked_for_goes(tmp_path: Path) -> None:
    part = interrupted(tmp_path / "out", erasing(ONE, TWO), QUICK | {"memory_gib": 1e-6})
    (part / "unet").mkdir()
    (part / "unet" / "half").touch()
    stages: list[str] = []
    out = erase(
        "micro",
        erasing(TWO),
        "mace",
        tmp_path / "out",
        options=QUICK,
        save="delta",
        on_step=lambda stage, *_: stages.append(stage),
    )
    assert "images" not in stages, "the second concept's images were there"
    assert not ConceptFolder(out / "erasure", ONE).path("loras").exists()
    assert {path.name for path in out.iterdir()} == {
        "unet-changed.safetensors",
        "erasure.json",
        "erasure",
        "README.md",
    }


def test_a_mistake_that_shows_late_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captions, alone = (
        tmp_path / "captions.txt",
        QUICK | {"memory_gib": 1e-6, "captions": str(tmp_path / "captions.txt")},
    )
    captions.write_text("a dog\n", encoding="utf-8")
    part = interrupted(tmp_path / "out", erasing(ONE, TWO), alone)
    captions.rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="Cannot read the captions"):
        erase("micro", erasing(ONE, TWO), "mace", tmp_path / "out", options=alone)
    assert ConceptFolder(part / "erasure", ONE).path("loras").exists()


def test_a_mask_that_fails_later_loses_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known only when it is drawn: the earlier call's work stays, however soon it comes."""
    alone = QUICK | {"memory_gib": 1e-6}
    part = interrupted(tmp_path / "out", erasing(ONE, TWO), alone)

    def nothing(self: AttentionMasks, request: MaskRequest) -> torch.Tensor:
        raise UsageError("there is nothing in it")

    monkeypatch.setattr(AttentionMasks, "masks", nothing)
    with pytest.raises(UsageError, match="nothing in it"):
        erase("micro", erasing(ONE, TWO, THREE), "mace", tmp_path / "out", options=alone)
    assert ConceptFolder(part / "erasure", ONE).path("loras").exists()


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_what_is_not_ours_is_not_removed(tmp_path: Path, what: str) -> None:
    part = tmp_path / ".out.part"
    if what == "file":
        part.write_text("mine")
    elif what == "folder":
        part.mkdir()
        (part / "thesis.txt").write_text("mine")
    else:
        (tmp_path / "mine").mkdir()
        part.symlink_to(tmp_path / "mine")
    with pytest.raises(UsageError, match="is in the way"):
        erase("micro", erasing(ONE), "mace", tmp_path / "out", options=QUICK)
    assert part.exists() and (what != "folder" or (part / "thesis.txt").read_text() == "mine")


def test_two_erasures_do_not_share_a_folder(tmp_path: Path) -> None:
    import fcntl

    part = tmp_path / ".out.part"
    part.mkdir()
    with (part / "auditor-erasure").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="Another erasure is at work"):
            erase("micro", erasing(ONE), "mace", tmp_path / "out", options=QUICK)


def test_a_link_to_an_empty_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    out = erase("micro", erasing(ONE), "mace", tmp_path / "link", options=QUICK | {"lora": False})
    assert out == tmp_path / "real" and (tmp_path / "link" / "model_index.json").exists()


def test_a_folder_that_fills_meanwhile_costs_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def fill(stage: str, step: int, steps: int) -> None:
        out.mkdir(exist_ok=True)
        (out / "file").touch()

    with pytest.raises(AuditorError, match="no longer empty; the result is whole in"):
        erase("micro", erasing(ONE), "mace", out, options=QUICK | {"lora": False}, on_step=fill)
    assert (tmp_path / ".out.part" / "erasure.json").exists()


def test_a_full_disk_is_said_and_keeps_what_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from auditor.builtins.erasers.mace import kept

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    part = interrupted(tmp_path / "out", erasing(ONE, TWO), QUICK | {"memory_gib": 1e-6})
    monkeypatch.setattr(kept, "write_whole", full)
    with pytest.raises(AuditorError, match=r"The disk under .* is full"):
        erase("micro", erasing(ONE, TWO), "mace", tmp_path / "out", options=QUICK | {"memory_gib": 1e-6})
    assert ConceptFolder(part / "erasure", ONE).path("loras").exists()


def test_a_concept_is_added_without_training_the_others_again(two: Path, tmp_path: Path) -> None:
    stages: list[tuple[str, int, int]] = []
    out = erase(
        "micro",
        erasing(ONE, TWO, THREE),
        "mace",
        tmp_path / "three",
        options=QUICK,
        reuse=two,
        on_step=lambda *step: stages.append(step),
    )
    assert max(steps for stage, _, steps in stages if stage == "LoRA") == QUICK["steps"]
    record = notes(out)["loras"]
    assert "trained_on" in record[ONE] and "trained_on" in record[TWO] and "trained_on" not in record[THREE]
    for name in (ONE, TWO):
        before, after = (
            load_file(ConceptFolder(folder / "erasure", name).path("loras")) for folder in (two, out)
        )
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_concept_is_taken_away_without_training_at_all(two: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    out = erase(
        "micro",
        erasing(TWO),
        "mace",
        tmp_path / "one",
        options=QUICK,
        reuse=two,
        on_step=lambda stage, *_: stages.append(stage),
    )
    assert "LoRA" not in stages and "images" not in stages
    assert notes(out)["loras"].keys() == {TWO}


def test_what_was_trained_otherwise_is_not_reused(two: Path, tmp_path: Path) -> None:
    assert plan_erasure("micro", erasing(ONE, TWO), "mace", options=QUICK, reuse=two)["reused"] == 2
    for policy, seed, other in (
        (erasing(ONE, TWO), 0, {"steps": 4}),
        (erasing(ONE, TWO), 0, {"mark": "phrase"}),
        (erasing(ONE, TWO), 0, {"images": 3}),
        (erasing(ONE, TWO), 1, {}),
        (erasing(ONE, synonyms=["another name"]), 0, {}),
        (erasing(ONE, TWO, domain="cars"), 0, {}),
    ):
        with pytest.raises(UsageError, match="nothing to reuse"):
            plan_erasure("micro", policy, "mace", options=QUICK | other, seed=seed, reuse=two)
    with pytest.raises(UsageError, match="takes nothing from an earlier result"):
        plan_erasure("micro", erasing(ONE), "esd", reuse=two)
    one_of_three = plan_erasure("micro", erasing(ONE, THREE), "mace", options=QUICK, reuse=two)
    assert (one_of_three["reused"], one_of_three["images"], one_of_three["training_evaluations"]) == (1, 2, 6)
    assert (
        plan_erasure("micro", erasing(ONE, TWO), "mace", options=QUICK | {"lambda1": 0.5}, reuse=two)[
            "reused"
        ]
        == 2
    )
    with pytest.raises(UsageError, match="holds nothing to reuse"):
        plan_erasure("micro", erasing(ONE), "mace", options=QUICK, reuse=tmp_path)


# -- options -------------------------------------------------------------------------------------------------


def test_compat_weighs_the_prior_as_the_reference_does() -> None:
    """mace.md, 1.5: kappa = s^2 in refinement, s in fusion, and w times as much for the domain; ten
    celebrities."""
    options = MaceOptions(lambda1=1e-4, lambda2=1e-4, domain_weight=8e4, compat="reference")
    weights = weights_of_priors(options)
    assert weights["refinement"]["first"] == pytest.approx(1e-8) and weights["refinement"][
        "second"
    ] == pytest.approx(8e-4)
    assert weights["fusion"]["first"] == pytest.approx(1e-4) and weights["fusion"]["second"] == pytest.approx(
        8
    )
    assert weights["refinement"]["first_in_rows"] == pytest.approx(0.47, abs=0.01)
    assert weights_of_priors(options.model_copy(update={"compat": "paper"}))["refinement"][
        "first"
    ] == pytest.approx(1e-4)


def test_marks_follow_positions_whatever_the_padding_token_is() -> None:
    """Padding with the end token (SD 1.x) and with another (SD 2.x)."""
    model = load_model(open_checkpoint("micro"))
    prompt = f"a photo of {ONE}"
    ids = model.tokenizer(prompt).input_ids
    inside = list(range(4, len(ids) - 1))
    length = model.token_ids([prompt]).shape[1]
    for pad in (model.tokenizer.eos_token, "a</w>"):
        model.tokenizer.pad_token = pad
        found = {
            mark: marks(model, prompt, ONE, mark).nonzero().flatten().tolist()
            for mark in ("phrase", "end", "padding")
        }
        assert found["phrase"] == inside
        assert found["end"] == [*inside, len(ids) - 1]
        assert found["padding"] == [*inside, *range(len(ids) - 1, length)]


@pytest.mark.parametrize(
    "change",
    [{"fusion": "sum"}, {"loss": "norm"}, {"importance_sampling": False}, {"mark": "end"}, {"rank": 2}],
)
def test_every_choice_reaches_the_weights(two: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    out = erase("micro", erasing(ONE, TWO), "mace", tmp_path / "out", options=QUICK | change)
    assert (out / UNET).read_bytes() != (two / UNET).read_bytes()


def test_summed_loras_are_refined_weights_and_loras(tmp_path: Path) -> None:
    refined = erase("micro", erasing(ONE, TWO), "mace", tmp_path / "refined", options=QUICK | {"lora": False})
    summed = erase("micro", erasing(ONE, TWO), "mace", tmp_path / "summed", options=QUICK | {"fusion": "sum"})
    before, after = load_file(refined / UNET), load_file(summed / UNET)
    loras = [lora_of(load_file(ConceptFolder(summed / "erasure", name).path("loras"))) for name in (ONE, TWO)]
    for layer in loras[0]:
        parts = sum(lora[layer].up @ lora[layer].down for lora in loras)
        torch.testing.assert_close(
            after[f"{layer}.weight"], before[f"{layer}.weight"] + parts, atol=1e-5, rtol=1e-4
        )


def test_the_prior_can_be_captions_and_the_domain_a_second_one(tmp_path: Path) -> None:
    captions = tmp_path / "captions.txt"
    captions.write_text("a photo of a dog\na photo of a ship\na photo of a dog\n", encoding="utf-8")
    options = QUICK | {
        "lora": False,
        "captions": str(captions),
        "cache": str(tmp_path / "cache"),
        "domain": ["Imka Soren"],
        "domain_weight": 10.0,
    }
    out = erase("micro", erasing(ONE), "mace", tmp_path / "out", options=options)
    tokens = load_model(open_checkpoint("micro")).token_ids([""]).shape[1]
    assert notes(out)["prior"]["rows"] == 3 * tokens
    assert notes(out)["prior"]["second_rows"] == (1 + 2) * len(ERASURE_TEMPLATES) * tokens, (
        "the named one and two retained people"
    )
    assert len(list((tmp_path / "cache").iterdir())) == 2
    again = erase("micro", erasing(ONE), "mace", tmp_path / "again", options=options)
    assert (again / UNET).read_bytes() == (out / UNET).read_bytes()
    captions.unlink()
    with pytest.raises(UsageError, match="Cannot read the captions"):
        plan_erasure("micro", erasing(ONE), "mace", options=options)


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"preserve": []}, "weigh a prior, and there is none"),
        ({"domain_weight": 1.0, "lambda1": 0.0, "lambda2": 0.0}, "domain_weight multiplies"),
        ({"masks": {"use": "folder", "options": {"folder": "/nonexistent"}}}, "cannot be read"),
        ({"masks": {"use": "grounded-sam", "options": {"detector": "/nonexistent"}}}, "There is no folder"),
        ({"cache": "/dev/null/x"}, "cannot be made"),
    ],
)
def test_what_can_be_known_before_is_said_by_a_dry_run(options: dict[str, Any], sentence: str) -> None:
    policy = erasing(ONE).model_copy(update={"retain": ()})
    with pytest.raises(UsageError, match=sentence):
        plan_erasure("micro", policy, "mace", options=QUICK | options)


def test_a_model_without_cross_attention_is_said() -> None:
    micro = load_model(open_checkpoint("micro"))
    model = dataclasses.replace(micro, parts=micro.parts | {"unet": torch.nn.Linear(2, 2)})
    policy = erasing(ONE)
    for eraser in (
        Mace(MaceOptions.model_validate(QUICK)).plan,
        Mace(MaceOptions.model_validate(QUICK)).erase,
    ):
        with pytest.raises(UsageError, match="edits cross-attention, and this model has none"):
            eraser(Erasure(model, policy.erase, policy.retain, 0))


def test_the_mapping_may_not_be_a_synonym() -> None:
    with pytest.raises(UsageError, match="the concept itself"):
        plan_erasure("micro", erasing(ONE, synonyms=["a person"]), "mace", options=QUICK)


def test_an_empty_mask_is_said_and_nothing_written(tmp_path: Path) -> None:
    (tmp_path / "masks" / ONE).mkdir(parents=True)
    for name in ("00.png", "01.png"):
        (tmp_path / "masks" / ONE / name).write_bytes(to_png(torch.zeros(3, 32, 32, dtype=torch.uint8)))
    options = QUICK | {"masks": {"use": "folder", "options": {"folder": str(tmp_path / "masks")}}}
    (tmp_path / "work").mkdir()
    with pytest.raises(UsageError, match=r"00\.png is empty; paint the concept white"):
        erase("micro", erasing(ONE), "mace", tmp_path / "work" / "out", options=options)
    assert not list((tmp_path / "work").iterdir())
    (tmp_path / "masks" / ONE / "00.png").unlink()
    with pytest.raises(UsageError, match=r"00\.png cannot be read"):
        erase("micro", erasing(ONE), "mace", tmp_path / "work" / "out", options=options)
    assert not list((tmp_path / "work").iterdir())


def test_a_singular_system_gets_a_ridge_that_is_recorded(tmp_path: Path) -> None:
    nothing_kept = QUICK | {
        "preserve": [],
        "lambda1": 0.0,
        "lambda2": 0.0,
        "lambda_identity": 0.0,
        "lora": False,
    }
    out = erase("micro", erasing(ONE), "mace", tmp_path / "out", options=nothing_kept)
    assert notes(out)["refinement"]["ridge"] > 0


def test_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path: Path) -> None:
    command = [
        "erase",
        "micro",
        "--eraser",
        "mace",
        "--policy",
        "micro-people",
        "--options",
        "micro-mace",
        "--dry-run",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "auditor", *command], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Borin Talvek: a person" in done.stdout and "training evaluations: 2000" in done.stdout
    assert "first in rows: 4749" in done.stdout, "the effective weight"
    assert not list(tmp_path.iterdir())
