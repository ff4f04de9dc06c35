"""A run's images are drawn again from its kept weights, and what is not the same is said, and kept out of
PASS."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import auditor
from auditor._audit.judge import judge_folder
from auditor._audit.replay import replay
from auditor._files.images import to_png
from auditor.errors import AuditorError, UsageError
from auditor.report import Outcome
from tests.conftest import short_policy
from tests.faults.forks import Forks

pytestmark = pytest.mark.usefixtures("nano")


@pytest.fixture(scope="module")
def run(erased: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished audit with two doses."""
    folder = tmp_path_factory.mktemp("replay")
    probes = [probe | {"doses": [2, 3]} for probe in short_policy().model_dump(mode="json")["probes"]]
    policy = short_policy(budget={"images_per_cell": 10, "retained_per_arm": 10}, probes=probes)
    auditor.audit(str(erased), policy, folder / "run", cache=folder / "cache")
    return folder / "run"


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy to replay, and to spoil."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_every_arm_is_drawn_again_bit_for_bit(copy: Path) -> None:
    report = replay(copy, samples=1000)
    found = report.provenance.replay
    assert found is not None and found.succeeded
    assert found.images == found.identical == found.same_hits == report.ledger.measured
    assert judge_folder(copy) == report, "judging again keeps what was found"


def test_a_few_samples_begin_with_the_probed_arms(copy: Path) -> None:
    found = replay(copy, samples=1).provenance.replay
    assert found is not None and found.images == 20


def test_images_that_were_changed_are_not_what_is_drawn(copy: Path, forks: Forks) -> None:
    journal = copy / "journal.jsonl"
    text = journal.read_text()
    for number, path in enumerate(list((copy / "images").iterdir())):
        text = text.replace(path.stem, f"{number:064x}")
        (copy / "images" / f"{number:064x}.png").write_bytes(
            to_png(torch.zeros(3, 32, 32, dtype=torch.uint8))
        )
    journal.write_text(text)
    report = replay(copy, samples=10)
    assert report.provenance.replay is not None and not report.provenance.replay.succeeded
    assert report.verdict.outcome is not Outcome.PASS
    assert any("does not replay" in reason for reason in report.verdict.reasons)
    done = forks.call("replay", copy, "--samples", "5")
    assert done.returncode == 5 and "does not replay within 8 of 255" in done.stderr


def test_missing_images_and_weights_are_said(copy: Path) -> None:
    (kept,) = {path for path in (copy / "arms").rglob("*.safetensors") if path.parent.name in last_arm(copy)}
    kept.unlink()
    with pytest.raises(UsageError, match=r"holds no sound weights of in-domain-lora\.step3"):
        replay(copy, samples=1)
    shutil.rmtree(copy / "images")
    with pytest.raises(AuditorError):
        replay(copy, samples=1000)


def last_arm(copy: Path) -> set[str]:
    from auditor._journal.file import read_journal
    from auditor._journal.lines import ArmLine

    return {
        line.weights
        for line in read_journal(copy / "journal.jsonl")
        if isinstance(line, ArmLine) and line.arm.endswith("step3")
    }


def test_another_checkpoint_is_not_replayed(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not what the run audited"):
        replay(copy, samples=1, checkpoint="micro")
    with pytest.raises(UsageError, match="is not the folder of an audit"):
        replay(tmp_path, samples=1)


def test_a_manifest_that_contradicts_itself_is_refused(copy: Path) -> None:
    """Seeds of one's own choosing would be a way to draw until it passes."""
    manifest = copy / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"audit": "', '"audit": "0'))
    for again in (judge_folder, replay):
        with pytest.raises(UsageError, match="contradicts itself"):
            again(copy)
