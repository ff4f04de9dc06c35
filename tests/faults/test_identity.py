"""A run folder goes on with the same audit only, and what was kept is used only where it is what its name
says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

import auditor
from auditor._audit.judge import judge_folder
from auditor._audit.replay import replay
from auditor._audit.run_folder.arms import ArmStore, digest_of_arm
from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._files.images import to_png
from auditor._journal.file import Journal
from auditor._journal.lines import ArmLine, BatchLine, StartLine
from auditor._process.device import device_kind
from auditor.errors import UsageError
from auditor.report import Outcome
from auditor.report.compare import read_report
from tests.conftest import short_policy
from tests.faults.runs import QUICK, SMALL, drawn_twice, lines_of, timeless

pytestmark = pytest.mark.usefixtures("nano")


@pytest.fixture(scope="module")
def folder(erased: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small audit in ``run``, with its ``cache``."""
    folder = tmp_path_factory.mktemp("identity")
    auditor.audit(
        str(erased), short_policy(budget=SMALL, sampler=QUICK), folder / "run", cache=folder / "cache"
    )
    return folder


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"nonce": "other"}, "policy.nonce: None → other"),
        ({"limits": {"max_false_positive": 0.06}}, "policy.limits.max_false_positive: 0.05 → 0.06"),
        ({"base": "none"}, r"base: [0-9a-f]{64} → None; policy.base: .* → none"),
        (
            {"budget": {"images_per_cell": 20, "retained_per_arm": 10}},
            "policy.budget.images_per_cell: 10 → 20",
        ),  # cells of a fixed design are read once
    ],
)
def test_a_folder_of_another_audit_is_refused_and_the_difference_shown(
    folder: Path, erased: Path, changes: dict[str, object], difference: str
) -> None:
    before = {path.name: path.read_bytes() for path in (folder / "run").iterdir() if path.is_file()}
    policy = short_policy(**{"budget": SMALL, "sampler": QUICK} | changes)
    with pytest.raises(UsageError, match=f"holds another audit \\({difference}.*give a new folder"):
        auditor.audit(str(erased), policy, folder / "run", cache=folder / "cache")
    assert before == {path.name: path.read_bytes() for path in (folder / "run").iterdir() if path.is_file()}


def test_another_checkpoint_is_refused(folder: Path, erased: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in erased.rglob("*"):
        if path.is_file():
            (other / path.relative_to(erased)).parent.mkdir(parents=True, exist_ok=True)
            (other / path.relative_to(erased)).write_bytes(path.read_bytes())
    weights = other / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_in.bias"] += 1e-6
    weights.write_bytes(save(tensors))
    with pytest.raises(UsageError, match=r"holds another audit \(checkpoint: [0-9a-f]{64} → [0-9a-f]{64}\)"):
        auditor.audit(
            str(other), short_policy(budget=SMALL, sampler=QUICK), folder / "run", cache=folder / "cache"
        )


@pytest.mark.parametrize(
    ("key", "value", "difference"),
    [
        ("versions", {"torch": "0.1"}, "versions.torch: 0.1 → "),
        ("plugins", {"probes/in-domain": "auditor 9"}, "plugins.probes/in-domain: auditor 9 → "),
    ],
)
def test_other_software_is_refused(
    folder: Path, erased: Path, key: str, value: object, difference: str
) -> None:
    manifest = folder / "run" / "manifest.json"
    before = manifest.read_bytes()
    changed = json.loads(before)
    changed["identity"][key] = value
    manifest.write_text(json.dumps(changed))
    try:
        with pytest.raises(UsageError, match=difference):
            auditor.audit(
                str(erased), short_policy(budget=SMALL, sampler=QUICK), folder / "run", cache=folder / "cache"
            )
    finally:
        manifest.write_bytes(before)


def test_a_run_goes_on_with_other_cores_and_computes_with_the_threads_it_had(
    folder: Path, erased: Path, tmp_path: Path
) -> None:
    """A finished run is read with any number; one that draws more keeps its own, so that bits compare."""
    out, policy = tmp_path / "run", short_policy(budget=SMALL, sampler=QUICK)
    before, threads = torch.get_num_threads(), 3
    shutil.copytree(folder / "run", out)
    first = next(line for line in lines_of(out) if isinstance(line, StartLine))
    assert (first.threads, first.precision) == (before, "float32") and first.device
    torch.set_num_threads(threads)
    try:
        again = auditor.audit(str(erased), policy, out, cache=folder / "cache")
        assert again.provenance.device == f"{first.device}, {before} threads"
        lines = (out / "journal.jsonl").read_text().splitlines(keepends=True)
        (out / "journal.jsonl").write_text("".join(lines[: len(lines) // 2]))
        resumed = auditor.audit(str(erased), policy, out, cache=folder / "cache")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    starts = [line for line in lines_of(out) if isinstance(line, StartLine)]
    assert len(starts) == 2 and {line.threads for line in starts} == {before}
    assert [control.passed for control in resumed.controls if control.name == "sham"] == [True]


def test_a_run_goes_on_on_another_kind_of_device_and_then_never_passes(
    folder: Path, erased: Path, tmp_path: Path
) -> None:
    """Bits are compared with what the same kind of device drew, so nothing looks broken."""
    out, policy = tmp_path / "run", short_policy(budget=SMALL, sampler=QUICK)
    shutil.copytree(folder / "run", out)
    lines = (out / "journal.jsonl").read_text().splitlines(keepends=True)
    journal = out / "journal.jsonl"
    journal.write_text("".join(lines[: len(lines) // 2]).replace(device_kind(), "another CPU"))
    resumed = auditor.audit(str(erased), policy, out, cache=folder / "cache")
    (reason,) = [reason for reason in resumed.verdict.reasons if "differ in their last bits" in reason]
    assert "another CPU in float32 and " in reason and "Audit again in a new folder" in reason
    assert resumed.verdict.outcome is Outcome.INCONCLUSIVE and not resumed.ledger.errors
    assert resumed.provenance.device.startswith("another CPU")


def test_a_larger_budget_goes_on_where_cells_are_read_round_by_round(
    folder: Path, erased: Path, tmp_path: Path
) -> None:
    out, larger = tmp_path / "run", {"images_per_cell": 30, "retained_per_arm": 10}
    limits = {"tau": 0.6, "min_sensitivity": 0.5, "max_false_positive": 0.3}
    changes = {"sequential": True, "sampler": QUICK, "limits": limits}
    before = auditor.audit(
        str(erased),
        short_policy(budget=SMALL | {"images_per_cell": 5}, **changes),
        out,
        cache=folder / "cache",
    )
    journal = (out / "journal.jsonl").read_bytes()
    after = auditor.audit(str(erased), short_policy(budget=larger, **changes), out, cache=folder / "cache")
    assert (out / "journal.jsonl").read_bytes().startswith(journal)
    assert drawn_twice(out) == [] and after.ledger.planned > before.ledger.planned
    assert sum(cell.n for cell in after.cells) > sum(cell.n for cell in before.cells)
    assert (
        len(
            {
                line.weights
                for line in lines_of(out)
                if isinstance(line, ArmLine) and line.arm == "in-domain-lora"
            }
        )
        == 1
    )


# -- trained arms --------------------------------------------------------------------------------------------


def flip_a_weight(path: Path) -> None:
    tensors = load_file(path)
    next(iter(tensors.values())).view(-1)[0] += 1
    path.write_bytes(save(tensors, {"adapters": _header(path)["__metadata__"]["adapters"]}))


def _header(path: Path) -> dict[str, dict[str, str]]:
    content = path.read_bytes()
    header: dict[str, dict[str, str]] = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header


def _with_adapters(adapters: str) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(save(load_file(path), {"adapters": adapters})) and None  # type: ignore[func-returns-value]


TAMPERED: dict[str, Callable[[Path], object]] = {
    "another weight": flip_a_weight,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "no metadata": lambda path: path.write_bytes(save(load_file(path))),
    "adapters are a list": _with_adapters("[]"),
    "adapters are null": _with_adapters("null"),
    "an adapter is a number": _with_adapters('{"probe": 1}'),
    "an adapter of rank 0": _with_adapters('{"probe": {"r": 0, "target_modules": ["to_q"]}}'),
    "an adapter of rank -1": _with_adapters('{"probe": {"r": -1, "target_modules": ["to_q"]}}'),
    "an adapter of no module": _with_adapters('{"probe": {"target_modules": ["nothing"]}}'),
    "an adapter named ''": _with_adapters('{"": {"target_modules": ["to_q"]}}'),
    "targets are a number": _with_adapters('{"probe": {"target_modules": 5}}'),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_an_arm_file_that_was_changed_is_not_restored(
    folder: Path, erased: Path, tmp_path: Path, how: str
) -> None:
    (kept,) = (folder / "run" / "arms").iterdir()
    copy = tmp_path / "arms" / kept.name / "changed.safetensors"
    copy.parent.mkdir(parents=True)
    copy.write_bytes((kept / "changed.safetensors").read_bytes())
    store = ArmStore(tmp_path / "arms")
    model = load_model(open_checkpoint(str(erased)))
    assert store.restore(model, kept.name) and digest_of_arm(model) == kept.name  # untouched, it is
    TAMPERED[how](copy)
    assert not store.restore(load_model(open_checkpoint(str(erased))), kept.name)


def test_a_run_trains_an_arm_again_whose_file_was_changed(folder: Path, erased: Path, tmp_path: Path) -> None:
    """The journal is cut in the middle of the probed arm; its kept weights were changed since."""
    policy, out = short_policy(budget=SMALL, sampler=QUICK | {"batch": 5}), tmp_path / "run"
    auditor.audit(str(erased), policy, out, cache=folder / "cache")
    whole, lines = timeless(out), (out / "journal.jsonl").read_bytes().splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if b'"batch","arm":"in-domain-lora"' in line)
    (out / "journal.jsonl").write_bytes(b"".join(lines[: first + 1]))
    (kept,) = (out / "arms").rglob("changed.safetensors")
    untouched = kept.read_bytes()
    flip_a_weight(kept)
    auditor.audit(str(erased), policy, out, cache=folder / "cache")
    assert timeless(out) == whole and drawn_twice(out) == []
    assert [line.arm for line in lines_of(out) if isinstance(line, ArmLine)].count(
        "in-domain-lora"
    ) == 2  # trained again
    assert kept.read_bytes() == untouched  # and kept again: the next resume needs no third training


# -- pictures of the base ------------------------------------------------------------------------------------


def test_pictures_of_the_base_that_were_changed_are_drawn_again(
    folder: Path, erased: Path, tmp_path: Path
) -> None:
    """A cache full of wrong pictures under right names changes nothing."""
    policy = short_policy(budget=SMALL, sampler=QUICK)
    for path in (folder / "cache").rglob("*.png"):
        (tmp_path / "cache" / path.parent.name).mkdir(parents=True, exist_ok=True)
        grey = torch.arange(32, dtype=torch.uint8).mul(7).expand(3, 32, 32)
        (tmp_path / "cache" / path.parent.name / path.name).write_bytes(to_png(grey))
    auditor.audit(str(erased), policy, tmp_path / "run", cache=tmp_path / "cache")
    assert timeless(tmp_path / "run") == timeless(folder / "run")
    assert not any(line.cached for line in lines_of(tmp_path / "run") if isinstance(line, BatchLine))


def test_two_audits_cannot_write_to_one_folder(folder: Path, erased: Path) -> None:
    with (
        Journal(folder / "run" / "journal.jsonl"),
        pytest.raises(UsageError, match="Another audit is writing"),
    ):
        auditor.audit(
            str(erased), short_policy(budget=SMALL, sampler=QUICK), folder / "run", cache=folder / "cache"
        )


# -- nobody rolls again --------------------------------------------------------------------------------------


def copied(erased: Path, to: Path) -> Path:
    return Path(shutil.copytree(erased, to))


def test_a_key_that_nobody_reads_is_no_other_throw(folder: Path, erased: Path, tmp_path: Path) -> None:
    """Another digest of the files, the same tensors and vocabulary: the same images."""
    copy = copied(erased, tmp_path / "copy")
    for name, key in (
        ("model_index.json", "_name_or_path"),
        ("unet/config.json", "optimization_step"),
        ("vae/config.json", "_name_or_path"),
        ("scheduler/scheduler_config.json", "_note"),
    ):
        content = json.loads((copy / name).read_text())
        (copy / name).write_text(json.dumps(content | {key: "another throw"}, indent=7))
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(save(load_file(weights), {"format": "pt", "note": "another throw"}))
    before, after = open_checkpoint(str(erased)), open_checkpoint(str(copy))
    assert before.digest != after.digest and before.drawn_digest == after.drawn_digest
    policy = short_policy(budget=SMALL, sampler=QUICK)
    report = auditor.audit(str(copy), policy, tmp_path / "run", cache=folder / "cache")
    first = auditor.judge_folder(folder / "run")
    assert report.provenance.audit_seed == first.provenance.audit_seed
    assert report.provenance.attempt == first.provenance.attempt, "no other throw, so no other attempt"


def test_attempts_are_counted_by_concepts_and_base(folder: Path, erased: Path, tmp_path: Path) -> None:
    """Whoever changes a weight has other seeds, and one more attempt."""
    copy = copied(erased, tmp_path / "copy")
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_in.bias"] += 1e-6
    weights.write_bytes(save(tensors))
    cache = tmp_path / "cache"
    policy = short_policy(budget=SMALL, sampler=QUICK)
    attempts = [
        auditor.audit(str(path), policy, tmp_path / path.name / "run", cache=cache).provenance
        for path in (erased, copy)
    ]
    assert [each.attempt for each in attempts] == [1, 2] and attempts[0].audit_seed != attempts[1].audit_seed


def test_a_run_folder_of_an_older_format_is_refused_in_one_sentence(
    folder: Path, erased: Path, tmp_path: Path
) -> None:
    """Whoever judges, replays or goes on; its report can still be read."""
    out, policy = tmp_path / "run", short_policy(budget=SMALL, sampler=QUICK)
    shutil.copytree(folder / "run", out)
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["format"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    for ask in (
        lambda: auditor.audit(str(erased), policy, out, cache=folder / "cache"),
        lambda: judge_folder(out),
        lambda: replay(out),
    ):
        with pytest.raises(UsageError, match="is a run folder of format 1, and this version reads 2"):
            ask()
    assert read_report(out).verdict.outcome is Outcome.INCONCLUSIVE
