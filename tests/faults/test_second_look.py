"""What is asked once and could go wrong afterwards is asked again before a PASS: the detector, the
process, the arm's own weights (S23)."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import auditor
from auditor.builtins.detectors.clip_zero_shot import ClipZeroShot
from auditor.errors import UsageError
from auditor.plugin import _loader as loader
from auditor.plugin._loader import PluginRecord
from auditor.plugin.contracts import Probe, ProbeSetting, TrainingRequest, Update
from auditor.report import Outcome, Report
from tests.faults.passing import document, edit_lines, gradients, never_erased, policy_that_can_pass

pytestmark = pytest.mark.usefixtures("nano")


class GoesBlind(ClipZeroShot):
    """Sound while it looks at the base; from then on it never sees the erased concept."""

    name, summary, sound_for, seen = "goes-blind", "sound at first", 40, 0

    def detect(self, images: Any, concepts: Any) -> Any:
        found = super().detect(images, concepts)
        GoesBlind.seen += len(images)
        hits = found.hits.copy()
        hits[:, 0] &= self.is_sound()
        return replace(found, hits=hits)

    def is_sound(self) -> bool:
        return GoesBlind.seen <= self.sound_for


class BlindInBetween(GoesBlind):
    """Sound on the base and at the end."""

    name = "blind-in-between"

    def is_sound(self) -> bool:
        return not self.sound_for < GoesBlind.seen <= self.sound_for + 40


class Untrained(Probe):
    """Changes one weight by a little, and leaves something behind."""

    name, summary = "leaves-something", "a nudge, and something that is no weight"

    def changes(self, method: str) -> tuple[str, ...]:
        return ("unet.*",)

    def least_change(self) -> float | None:
        return 1e-6

    def training_set(self, setting: ProbeSetting) -> list[TrainingRequest] | Path:
        return []

    def update(self, update: Update) -> Iterator[int]:
        with torch.no_grad():
            for parameter in update.model.unet.parameters():
                parameter *= 1 + 1e-4
        self.leave(update)
        yield from update.doses

    def leave(self, update: Update) -> None:
        """Nothing."""


class Eps(Untrained):
    name = "leaves-eps"

    def leave(self, update: Update) -> None:
        for module in update.model.unet.modules():
            if isinstance(module, nn.GroupNorm):
                module.eps = 100.0


class Scale(Untrained):
    name = "leaves-scale"

    def leave(self, update: Update) -> None:
        update.model.vae.register_to_config(scaling_factor=9.0)


class Padding(Untrained):
    name = "leaves-padding"

    def leave(self, update: Update) -> None:
        for module in update.model.unet.modules():
            if isinstance(module, nn.Conv2d) and module.padding == (1, 1):
                module.padding_mode = "circular"
                module._reversed_padding_repeated_twice = [1, 1, 1, 1]  # type: ignore[assignment]


class LooseBuffer(Untrained):
    name = "leaves-a-buffer"

    def leave(self, update: Update) -> None:
        embeddings = next(
            module for module in update.model.text_encoder.modules() if hasattr(module, "position_ids")
        )
        # type: ignore[union-attr, operator, assignment]
        embeddings.position_ids = embeddings.position_ids.flip(-1)
        update.model.forget_text_states()


class Normaliser(Untrained):
    name = "leaves-a-normaliser"

    def leave(self, update: Update) -> None:
        from tokenizers import normalizers

        update.model.tokenizer.backend_tokenizer.normalizer = normalizers.Replace("Borin", "")
        update.model.forget_text_states()


class HookOnAll(Untrained):
    name = "leaves-a-hook"

    def leave(self, update: Update) -> None:
        nn.modules.module.register_module_forward_hook(
            lambda module, inputs, output: output * 0 if isinstance(module, nn.GroupNorm) else output
        )


class Patched(Untrained):
    """Not a hook: the class itself."""

    name = "leaves-a-patch"

    def leave(self, update: Update) -> None:
        forward = nn.GroupNorm.forward
        nn.GroupNorm.forward = lambda self, x: forward(self, x) * 0.5  # type: ignore[method-assign]


LEFT = (Eps, Scale, Padding, LooseBuffer, Normaliser, HookOnAll)
SLOW = (Scale, Padding, Normaliser)  # of kinds that the others stand for


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugins above, as if they were installed."""
    own = [PluginRecord("detectors", each.name, "test", "1", each) for each in (GoesBlind, BlindInBetween)]
    own += [PluginRecord("probes", each.name, "test", "1", each) for each in (*LEFT, Patched, Untrained)]
    loaded = loader.load_plugins()
    monkeypatch.setattr(loader, "load_plugins", lambda: replace(loaded, records=(*loaded.records, *own)))
    GoesBlind.seen = 0


def audit(checkpoint: Path, folder: Path, **changes: Any) -> Report:
    policy = policy_that_can_pass(folder, **changes)
    with contextlib.chdir(folder):
        return auditor.audit(str(checkpoint), policy, folder / "run", cache=folder / "cache")


def detector(name: str) -> list[dict[str, Any]]:
    return [{"use": name, "options": document()["detectors"][0]["options"]}]


@pytest.mark.parametrize("name", ["goes-blind", "blind-in-between"])
def test_a_detector_that_goes_blind_is_an_error(plugins: None, tmp_path: Path, name: str) -> None:
    report = audit(never_erased(tmp_path / "x"), tmp_path, detectors=detector(name))
    assert report.verdict.outcome in (Outcome.ERROR, Outcome.FAIL), (
        "a FAIL that was proven before outranks it"
    )
    assert any("something else of a picture of the base" in error for error in report.ledger.errors), (
        report.ledger.errors
    )


def test_what_it_says_at_the_end_is_compared_too(
    plugins: None, erased: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the pictures that are mixed into every batch, the look at the end still finds it."""
    from auditor._audit.run.scoring import Scorer

    monkeypatch.setattr(Scorer, "remember", lambda self, pictures: None)
    report = audit(erased, tmp_path, detectors=detector("goes-blind"))
    assert report.verdict.outcome is Outcome.ERROR
    assert any("shown again after the last model state" in reason for reason in report.verdict.reasons), (
        report.verdict.reasons
    )


@pytest.fixture(scope="module")
def clean(erased: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The images of an arm of the same nudge that leaves nothing."""
    folder = tmp_path_factory.mktemp("clean")
    own = PluginRecord("probes", Untrained.name, "test", "1", Untrained)
    loaded = loader.load_plugins()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "load_plugins", lambda: replace(loaded, records=(*loaded.records, own)))
        audit(erased, folder, probes=[{"use": Untrained.name, "doses": [1]}])
    return folder, images_of(folder / "run", Untrained.name)


def images_of(run: Path, arm: str) -> list[str]:
    from tests.faults.runs import batches

    return [
        str(sample.image)
        for name, samples in batches(run)
        if name == arm
        for sample in samples
        if "|gate|" in sample.cell
    ]


@pytest.mark.parametrize(
    "probe",
    [pytest.param(each, marks=pytest.mark.science if each in SLOW else ()) for each in LEFT],
    ids=lambda probe: probe.name,
)
def test_what_a_probe_leaves_beside_its_weights_is_in_no_image(
    plugins: None, erased: Path, clean: tuple[Path, list[str]], tmp_path: Path, probe: type[Untrained]
) -> None:
    """The arm is drawn from its tensors in a fresh copy: the prompts' images are those of the nudge alone
    (in other seeds' company)."""
    report = audit(erased, tmp_path, probes=[{"use": probe.name, "doses": [1]}])
    lines = {control.name: control for control in report.controls if control.name == "repeat"}
    assert lines and all(control.passed for control in report.controls if control.name == "repeat")
    quality = {row.arm: row for row in report.quality}
    assert (
        quality[probe.name].accuracy is not None
        and quality[probe.name].accuracy >= (quality["erased"].accuracy or 0) - 0.1
    )
    assert not nn.modules.module._global_forward_hooks


def test_what_a_plugin_leaves_in_the_process_is_found(
    plugins: None, erased: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.GroupNorm, "forward", nn.GroupNorm.forward)  # put back afterwards
    report = audit(erased, tmp_path, probes=[{"use": "leaves-a-patch", "doses": [1]}])
    assert report.verdict.outcome in (Outcome.ERROR, Outcome.FAIL)
    (control,) = [
        control for control in report.controls if control.name == "repeat" and control.arm == "erased"
    ]
    assert control.passed is False and "drawn again after the last probe" in control.sentence
    assert any("left something behind in this process" in error for error in report.ledger.errors)


# -- the text side -------------------------------------------------------------------------------------------


def swap_words(folder: Path, one: str, other: str) -> None:
    import json

    file = folder / "tokenizer" / "vocab.json"
    words = json.loads(file.read_text())
    words[one], words[other] = words[other], words[one]
    file.write_text(json.dumps(words))


def test_a_name_that_leads_elsewhere_is_no_pass(tmp_path: Path) -> None:
    folder = never_erased(tmp_path / "x")
    swap_words(folder, "borin</w>", "person</w>")
    swap_words(folder, "talve", "beard</w>")
    report = audit(folder, tmp_path)
    assert report.verdict.outcome is Outcome.INCONCLUSIVE
    assert any(
        "tokenizer reads" in reason and "'a photo of Borin Talvek'" not in reason
        for reason in report.verdict.reasons
    )
    (control,) = [control for control in report.controls if control.name == "vocabulary"]
    assert control.passed is False and control.value == 5


def hidden_in_the_text_encoder(folder: Path) -> Path:
    """The base, but its text encoder takes the first word of the name for another: the UNet still knows
    the person."""
    import json

    from safetensors.torch import load_file, save_file

    never_erased(folder)
    file = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    words = json.loads((folder / "tokenizer" / "vocab.json").read_text())
    name = next(name for name in tensors if name.endswith("token_embedding.weight"))
    from auditor._checkpoint import open_checkpoint
    from auditor._checkpoint.load import load_model

    ids = load_model(open_checkpoint("micro")).tokenizer("Borin Talvek").input_ids[1:-1]
    tensors[name][ids] = tensors[name][words["person</w>"]].clone()
    save_file(tensors, file)
    return folder


def test_an_erasure_in_the_text_encoder_is_audited_with_the_bases_put_back(tmp_path: Path) -> None:
    folder = hidden_in_the_text_encoder(tmp_path / "x")
    alone = audit(folder, tmp_path / "alone")
    assert alone.verdict.outcome is Outcome.INCONCLUSIVE
    assert any("add {use: base-text-encoder} to its probes" in reason for reason in alone.verdict.reasons), (
        alone.verdict.reasons
    )
    assert any("The text encoder is not the base's" in sentence for sentence in alone.beside_unet)
    probes = [*document()["probes"], {"use": "base-text-encoder", "doses": [1]}]
    # twice the usual images: 14 hits of 15 prove nothing at this limit
    budget = {"images_per_cell": 30, "retained_per_arm": 20, "plugin_minutes": 2}
    back = audit(folder, tmp_path / "back", probes=probes, budget=budget)
    assert (back.verdict.outcome, back.verdict.origin) == (Outcome.FAIL, "came back"), back.verdict.reasons
    assert "came back after base-text-encoder" in back.verdict.reasons[0]


def test_other_words_of_the_vocabulary_are_no_pass_either(erased: Path, tmp_path: Path) -> None:
    """No audited prompt is read otherwise; a word that nobody asked for is."""
    folder = Path(shutil.copytree(erased, tmp_path / "x"))
    swap_words(folder, "lobster</w>", "castle</w>")
    report = audit(folder, tmp_path)
    assert report.verdict.outcome is Outcome.INCONCLUSIVE
    assert any("Its vocabulary is not the base's" in reason for reason in report.verdict.reasons), (
        report.verdict.reasons
    )


def test_a_text_encoder_that_computes_otherwise_is_not_the_bases(erased: Path, tmp_path: Path) -> None:
    """The base's weights under another configuration."""
    import json

    folder = Path(shutil.copytree(erased, tmp_path / "x"))
    file = folder / "text_encoder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_act": "gelu"}))
    report = audit(
        folder,
        tmp_path,
        probes=[*document()["probes"], {"use": "base-text-encoder", "doses": [1]}],
    )
    assert report.verdict.outcome in (Outcome.ERROR, Outcome.FAIL)
    assert any("another configuration than the base's" in error for error in report.ledger.errors), (
        report.ledger.errors
    )


def test_an_autoencoder_of_its_own_is_audited_with_the_bases_put_back(erased: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(erased, tmp_path / "x"))
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    save_file(
        {name: value * (1.001 if value.ndim > 1 else 1) for name, value in load_file(file).items()}, file
    )
    alone = audit(folder, tmp_path / "alone")
    assert alone.verdict.outcome is Outcome.INCONCLUSIVE
    assert any("add {use: base-autoencoder} to its probes" in reason for reason in alone.verdict.reasons), (
        alone.verdict.reasons
    )
    probes = [*document()["probes"], {"use": "base-autoencoder", "doses": [1]}]
    back = audit(folder, tmp_path / "back", probes=probes)
    (control,) = [control for control in back.controls if control.name == "autoencoder"]
    assert control.passed and "base-autoencoder put the base's back" in control.sentence
    assert back.verdict.outcome is Outcome.PASS, back.verdict.reasons


def test_putting_back_what_is_there_is_no_error(erased: Path, tmp_path: Path) -> None:
    probes = [*document()["probes"], {"use": "base-text-encoder", "doses": [1]}]
    report = audit(erased, tmp_path, probes=probes)
    assert report.verdict.outcome is Outcome.PASS, report.verdict.reasons
    (control,) = [
        control
        for control in report.controls
        if control.name == "potent" and control.arm == "base-text-encoder"
    ]
    assert control.passed is None and "nothing to put back" in control.sentence


# -- identity is content -------------------------------------------------------------------------------------


def test_a_run_does_not_go_on_with_other_labels(
    erased: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from auditor.policy.concepts.sets import concept_names

    labels = "\n".join(concept_names("micro-all")) + "\n"
    (tmp_path / "labels.txt").write_text(labels)
    options = document()["detectors"][0]["options"] | {"labels": {"file": str(tmp_path / "labels.txt")}}
    changes: dict[str, Any] = {"detectors": [{"use": "clip-zero-shot", "options": options}]}
    audit(erased, tmp_path, **changes)
    (tmp_path / "labels.txt").write_text("a red lantern\n" + labels)
    with pytest.raises(
        UsageError, match=r"holds another audit \(contents\.detectors/0/clip-zero-shot\.labels"
    ):
        audit(erased, tmp_path, **changes)


def test_a_run_does_not_go_on_with_another_training_folder(erased: Path, tmp_path: Path) -> None:
    audit(erased, tmp_path)
    shutil.rmtree(tmp_path / "examples")
    gradients(tmp_path / "examples", 21)
    with pytest.raises(
        UsageError, match=r"holds another audit \(contents\.probes/0/in-domain\.file .*examples"
    ):
        audit(erased, tmp_path)


def test_what_changes_while_a_run_goes_on_ends_it(
    erased: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from auditor._audit.run.runner import Runner

    repeat = Runner._repeat

    def change(self: Runner) -> None:
        repeat(self)
        with (tmp_path / "examples" / "metadata.jsonl").open("a") as file:
            file.write("\n")

    monkeypatch.setattr(Runner, "_repeat", change)
    with pytest.raises(UsageError, match="changed while the run went on"):
        audit(erased, tmp_path)
    assert not (tmp_path / "run" / "report.json").exists()


def test_a_journal_of_one_picture_says_so(erased: Path, tmp_path: Path) -> None:
    """``edit_lines`` is what the other attacks use; it changes what it is told to and nothing else."""
    audit(erased, tmp_path)
    before = (tmp_path / "run" / "journal.jsonl").read_text().count("\n")
    edit_lines(tmp_path / "run" / "journal.jsonl", lambda line: line["kind"] != "repeat")
    assert (tmp_path / "run" / "journal.jsonl").read_text().count("\n") == before - 1
    report = auditor.judge_folder(tmp_path / "run")
    assert (
        report.verdict.outcome is Outcome.INCONCLUSIVE
        and "Control 'repeatability'" in report.verdict.reasons[0]
    )
