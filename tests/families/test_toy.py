"""A family in a folder of its own, from the disk to the verdict: admitted, digested, loaded, drawn, erased,
probed and audited by code that never heard of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import auditor
from auditor._audit.plan import Plan
from auditor._checkpoint import Form, open_checkpoint
from auditor._checkpoint.addresses import HubSource
from auditor._checkpoint.hub import needed
from auditor._checkpoint.inspection import inspect
from auditor._checkpoint.load import load_model
from auditor._erase.erase import erase
from auditor._files.digest import sha256_json
from auditor._journal.lines import ComparedLine
from auditor.errors import RefusedError
from auditor.families.registry import families, family_of_index, registered
from auditor.report import Outcome
from tests.conftest import erased_well, journal_of, short_policy, verdict_of
from tests.families.toy import TOY, toy_model, write_toy

STEM = "diffusion_pytorch_model.safetensors"
ESD = {"variant": "x", "steps": 3, "learning_rate": 1e-2, "size": 32, "sampling_steps": 4}


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    with registered(TOY):
        yield


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "toy")


def test_it_is_known_while_it_is_registered() -> None:
    assert families()[-1] is TOY and family_of_index({"_class_name": "ToyPipeline"}) is TOY
    assert family_of_index({"_class_name": "AnyOther"}) is families()[0] is not TOY


def test_it_is_admitted_digested_and_loaded(base: Path, tmp_path: Path) -> None:
    opened = open_checkpoint(str(base))
    assert opened.family is TOY and opened.form is Form.FOLDER and opened.prediction == "velocity"
    wanted = {f"{part}/{name}" for part in TOY.stems for name in (STEM, "config.json")}
    wanted |= {"model_index.json", "tokenizer/words.json", "scheduler/scheduler_config.json"}
    assert opened.files.keys() == wanted and opened.digest == sha256_json(opened.files)
    model, own = load_model(opened, "float32"), toy_model()
    assert model.family is TOY and model.scheduler_config["shift"] == 1.5
    for part, module in model.modules.items():
        assert all(torch.equal(v, own.modules[part].state_dict()[n]) for n, v in module.state_dict().items())
    found = inspect(str(base), full=True)
    assert (found.family, found.digest, found.refused) == ("Toy", opened.digest, None)
    assert [each.name for each in found.components] == list(TOY.stems)
    assert open_checkpoint(str(write_toy(tmp_path / "other", 1))).drawn_digest != opened.drawn_digest


def test_the_files_of_its_own_parts_are_fetched(base: Path) -> None:
    source = HubSource("org/toy", None, None)
    files = [path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file()]
    beside = ["transformer/other.bin", "transformer/other.safetensors", "text_encoder_9/model.safetensors"]
    assert needed(source, [*files, *beside]) == sorted(files)


def changed(name: str, **changes: Any) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def tensors(part: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        held = load_file(folder / part / STEM)
        change(held)
        save_file(held, folder / part / STEM)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            tensors("transformer", lambda held: held.pop("to_q.weight")),
            r"transformer has 1 missing tensors for its declared architecture, the first to_q\.weight",
        ),
        (
            tensors("words", lambda held: held.update({"more.weight": torch.rand(2)})),
            r"words has 1 unexpected tensors for its declared architecture, the first more\.weight",
        ),
        (
            tensors("transformer", lambda held: held.update({"to_k.bias": torch.rand(2)})),
            r"transformer has mismatched tensors: to_k\.bias is of shape",
        ),
        (changed("model_index.json", vae=["diffusers", "AutoencoderKL"]), "declares vae = .*no part of what"),
        (
            changed("model_index.json", words=["transformers", "CLIPTextModel"]),
            "declares words = .*only ToyTable can be audited",
        ),
        (changed("transformer/config.json", attention="joint"), "has the key 'attention'"),
        (changed("transformer/config.json", channels=9), "has channels = 9, which no model of this kind has"),
        (changed("scheduler/scheduler_config.json", shift=-1.0), "a noise schedule with the shift -1"),
        (changed("tokenizer/words.json", words=["?"]), "lists 1 words, and its table holds others"),
        (changed("tokenizer/words.json", words=3), "has no words"),
        (lambda folder: shutil.rmtree(folder / "pixels"), "has no pixels"),
    ],
)
def test_a_refusal_names_its_own_parts(base: Path, spoil: Callable[[Path], object], words: str) -> None:
    spoil(base)
    with pytest.raises(RefusedError, match=words) as caught:
        load_model(open_checkpoint(str(base)))
    assert not any(word in str(caught.value) for word in ("UNet", "unet", "Stable Diffusion", "text_encoder"))


def test_an_adapter_is_laid_over_its_layers_and_over_no_others(base: Path, tmp_path: Path) -> None:
    opened, torn = open_checkpoint(str(base)), toy_model()
    pair = {"lora_A.weight": torch.rand(2, 16), "lora_B.weight": torch.rand(16, 2)}
    for layer in ("transformer.to_k", "unet.mid_block.attentions.0.to_k"):
        save_file({f"{layer}.{end}": value for end, value in pair.items()}, tmp_path / f"{layer}.safetensors")
    over = open_checkpoint(str(tmp_path / "transformer.to_k.safetensors"), base=opened)
    assert over.form is Form.LORA and over.replaced == ("transformer",)
    assert (
        over.content
        == "LoRA of 1 layer of transformer; strength 1 (1 layer); assumed for 1, the file does not say"
    )
    merged = load_model(over, "float32").denoiser.to_k.weight
    wanted = torn.denoiser.to_k.weight + pair["lora_B.weight"] @ pair["lora_A.weight"]
    assert torch.allclose(merged, wanted, atol=1e-6)
    with pytest.raises(RefusedError, match="does not fit its base: it has no layer for unet"):
        open_checkpoint(str(tmp_path / "unet.mid_block.attentions.0.to_k.safetensors"), base=opened)


def test_words_that_are_not_the_bases_keep_a_pass_out_of_reach(plan: Plan) -> None:
    compared, *rest = journal_of(plan, erased_well)
    assert isinstance(compared, ComparedLine)
    for distances, outcome in (
        ((0.0, 0.0), "PASS"),
        ((0.3, 0.0), "INCONCLUSIVE"),
        ((0.0, -1.0), "INCONCLUSIVE"),
    ):
        parts = dict(zip((*TOY.text, TOY.decoder), distances, strict=True))
        report = verdict_of(plan, [compared.model_copy(update={"parts": parts}), *rest])
        assert report.verdict.outcome == outcome
        said = [part for part in parts if any(f"The part '{part}'" in each for each in report.beside_unet)]
        assert said == [part for part, distance in parts.items() if distance]
        sentences = " ".join(control.sentence for control in report.controls)
        assert said == [part for part in parts if f"The part '{part}' is not the base's" in sentences]


def test_it_is_erased_from_and_audited(base: Path, tmp_path: Path) -> None:
    policy = short_policy(
        base={"source": str(base)},
        erase=[{"name": "Borin Talvek", "domain": "people", "prompts": "paper-people"}],
        sampler={"scheduler": "ddim", "steps": 3, "guidance": 2.0, "size": 32},
        budget={"images_per_cell": 10, "retained_per_arm": 10},
    )
    whole = erase(str(base), policy, "esd", tmp_path / "whole", options=ESD)
    part = erase(str(base), policy, "esd", tmp_path / "part", options=ESD, save="delta")
    opened = open_checkpoint(str(base))
    delta = open_checkpoint(str(part / "transformer-changed.safetensors"), base=opened)
    assert delta.form is Form.DELTA
    assert delta.content == "4 of 12 tensors of transformer; the others are the base's"
    one, other = load_model(open_checkpoint(str(whole)), "float32"), load_model(delta, "float32")
    assert all(torch.equal(v, other.denoiser.state_dict()[n]) for n, v in one.denoiser.state_dict().items())
    report = auditor.audit(str(whole), policy, tmp_path / "run", cache=tmp_path / "cache")
    assert report.ledger.whole and report.verdict.outcome is Outcome.INCONCLUSIVE
    assert report.checkpoint.digest == open_checkpoint(str(whole)).digest
    assert {each.part for each in report.distances} >= {"transformer", "to_k", "to_v"}
    (trained,) = report.replicates
    assert trained.dose == 3 and len(trained.rates) == 1
    again = auditor.replay(tmp_path / "run", samples=40)
    assert again.provenance.replay is not None and again.provenance.replay.succeeded
