"""Each update against its definition, and what every probe must pass."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from auditor.plugin import FineTune, PluginError, Update, UsageError, make_plugin
from auditor.testing import Kit, ProbeConformance, digest_of_arm
from auditor_updates import MergeLora, Quantisation, Sequence, TextualInversion, WeightNoise
from auditor_updates.weights import rounded

TRAIN = {"candidates": "micro-people", "names": 1, "images_per_prompt": 2, "batch": 2}


class TestInt8(ProbeConformance):
    plugin = Quantisation


class TestBfloat16(ProbeConformance):
    plugin = Quantisation
    options = {"to": "bfloat16"}


class TestWeightNoise(ProbeConformance):
    plugin = WeightNoise


class TestTextualInversion(ProbeConformance):
    plugin = TextualInversion
    options = TRAIN | {"token": "sticker", "prompts": ["a sticker of {}"]}


class TestSequence(ProbeConformance):
    plugin = Sequence
    options = {
        "updates": [
            {"use": "in-domain", "steps": 2, "options": TRAIN},
            {"use": "in-domain", "method": "full", "steps": 2, "options": TRAIN | {"names": 2}},
        ]
    }


def test_a_sequence_is_of_updates_of_weights() -> None:
    member = {"use": "sampling", "steps": 1, "options": {"steps": 9}}
    plugin = Sequence(Sequence.Options.model_validate({"updates": [member]}))
    with pytest.raises(UsageError, match="the probe sampling changes none"):
        plugin.parts()


@pytest.fixture
def lora(tmp_path: Path, micro: Kit) -> Path:
    """A LoRA on one projection, in diffusers' keys: all ones."""
    name, weight = next(
        (n, w) for n, w in micro.model().unet.named_parameters() if n.endswith("attn2.to_q.weight")
    )
    stem = f"unet.{name.removesuffix('.weight')}"
    down, up = torch.ones(2, weight.shape[1]) * 0.1, torch.ones(weight.shape[0], 2) * 0.1
    save_file({f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}, tmp_path / "lora.safetensors")
    return tmp_path / "lora.safetensors"


def update(model: object, seed: int = 0) -> Update:
    return Update(model, torch.empty((0, 3, 32, 32), dtype=torch.uint8), (), "lora", (1,), seed)  # type: ignore[arg-type]


def merge(lora: Path, **changes: object) -> MergeLora:
    digest = hashlib.sha256(lora.read_bytes()).hexdigest()
    return MergeLora(MergeLora.Options.model_validate({"file": lora, "sha256": digest} | changes))


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_merged_lora_is_its_product(lora: Path, micro: Kit, scale: float) -> None:
    model, before = micro.model(), micro.model().unet.state_dict()
    list(merge(lora, scale=scale).update(update(model)))
    changed = {
        name: value - before[name]
        for name, value in model.unet.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert len(changed) == 1
    assert torch.allclose(next(iter(changed.values())), torch.tensor(0.02 * scale), atol=1e-6)


def test_another_lora_than_the_policys_is_refused(lora: Path, micro: Kit) -> None:
    with pytest.raises(UsageError, match="it is another LoRA"):
        list(merge(lora, sha256="0" * 64).update(update(micro.model())))
    with pytest.raises(UsageError, match="There is no LoRA"):
        list(merge(lora, file=lora.with_name("gone")).update(update(micro.model())))


def test_int8_has_at_most_255_values_a_channel() -> None:
    weight = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    after = rounded(weight, "int8")
    assert all(len(channel.unique()) <= 255 for channel in after)
    assert float((after - weight).abs().max()) <= float(weight.abs().max()) / 127 / 2 + 1e-7
    assert torch.equal(rounded(after, "int8"), after)
    assert torch.equal(rounded(weight, "float16"), weight.half().float())


def test_noise_has_the_scale_that_was_asked_for(micro: Kit) -> None:
    model = micro.model()
    list(WeightNoise(WeightNoise.Options(scale=0.05)).update(update(model)))
    assert micro.original.change(model, ("unet.*",), "noise").relative == pytest.approx(0.05, rel=0.02)


def test_textual_inversion_changes_one_row(micro: Kit) -> None:
    test = TestTextualInversion()
    model, before = micro.model(), micro.model().text_encoder.get_input_embeddings().weight
    list(test.update(micro, test.make(), model))
    rows = (
        (model.text_encoder.get_input_embeddings().weight != before).any(dim=1).nonzero().flatten().tolist()
    )
    assert rows == model.tokenizer("sticker").input_ids[1:-1]


def test_a_word_of_several_tokens_is_refused(micro: Kit) -> None:
    test = TestTextualInversion()
    plugin = TextualInversion(
        TextualInversion.Options.model_validate(
            test.options | {"token": "xqzjw", "prompts": ["a xqzjw of {}"]}
        )
    )
    with pytest.raises(UsageError, match="needs a word of one"):
        list(test.update(micro, plugin, micro.model()))
    with pytest.raises(UsageError, match="with the word 'sticker' in each"):
        TextualInversion(TextualInversion.Options(token="sticker")).training_set(test.setting(micro))


def test_a_member_that_does_nothing_is_no_update(micro: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    test = TestSequence()
    monkeypatch.setattr(FineTune, "update", lambda self, update: iter(()))
    with pytest.raises(
        PluginError, match=r"'in-domain' .*reached the training steps \[\] in a sequence; \[2\] is right"
    ):
        list(test.update(micro, test.make(), micro.model()))


def test_a_sequence_of_updates_without_training_trains_on_nothing(micro: Kit) -> None:
    plugin = Sequence(
        Sequence.Options.model_validate({"updates": [{"use": "quantisation"}, {"use": "weight-noise"}]})
    )
    assert (
        not plugin.has_sham
        and plugin.least_change() == 2e-3
        and plugin.training_set(TestSequence().setting(micro)) == []
    )
    assert [part.name for part in plugin.parts()] == ["quantisation", "weight-noise"]


def test_quantisation_of_what_is_quantised_already_is_said(micro: Kit) -> None:
    with pytest.raises(UsageError, match="float16 already"):
        list(Quantisation(Quantisation.Options(to="float16")).update(update(micro.model())))


def test_a_sequence_goes_on_from_where_the_last_update_ended(micro: Kit) -> None:
    """Two updates in one run are the first, merged, and then the second."""
    test = TestSequence()
    digests = {}
    for doses in ((1,), (2,), (1, 2)):
        test.__class__.doses, model, plugin = doses, micro.model(), test.make()
        digests[doses] = [digest_of_arm(model) for _ in test.update(micro, plugin, model)]
    test.__class__.doses = (1, 2)
    assert digests[1, 2] == [*digests[1,], *digests[2,]]
    assert digests[1,] != digests[2,]


def test_a_member_of_a_sequence_may_use_the_base(micro: Kit) -> None:
    """A LoRA of the base's over two updates: twice the base is trained on, as it was."""
    test, member = TestSequence(), {"use": "base-lora", "steps": 2, "options": TRAIN}
    plugin = Sequence(Sequence.Options.model_validate({"updates": [member]}))
    alone = make_plugin("probes", "base-lora", TRAIN)
    changed = {}
    for name, probe, seed in (("both", plugin, 5), ("first", alone, 6), ("second", alone, 7)):
        model = micro.model()
        for _ in test.update(micro, probe, model, seed):
            changed[name] = micro.original.change(model, ("unet.*",), name).tensors
    before = micro.model().unet.state_dict()
    assert changed["both"].keys() == changed["first"].keys() == changed["second"].keys()
    for name, both in changed["both"].items():
        added = changed["first"][name] + changed["second"][name] - before[name.removeprefix("unet.")]
        assert torch.allclose(both, added, rtol=0, atol=1e-6)


def test_an_embedding_is_learnt_in_passes_where_memory_runs_out(micro: Kit) -> None:
    """Of four rows a card holds two: the same row of the table comes of it."""
    probe = TextualInversion(
        TextualInversion.Options.model_validate({"token": "sticker", "prompts": ["a sticker of {}"]})
    )
    images = torch.randint(
        0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    tables, fewer, room = [], list[int](), [0]

    def narrow(unet: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if len(given[0]) > room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    for room[0] in (4, 2):
        model = micro.model()
        handle = model.unet.register_forward_pre_hook(narrow)
        asked = Update(model, images, ("a sticker of the lamp",) * 4, "lora", (2,), 3, on_fewer=fewer.append)
        assert list(probe.update(asked)) == [2]
        handle.remove()
        tables.append(model.text_encoder.get_input_embeddings().weight.clone())
    assert fewer == [2]
    assert float((tables[0] - tables[1]).abs().max()) < 1e-4
    assert int((tables[0] != micro.model().text_encoder.get_input_embeddings().weight).any(1).sum()) == 1
