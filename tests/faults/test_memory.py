"""Memory that runs out: the batch is halved once and that is recorded; after that the arm is an error and
the others go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.nn.modules.module import register_module_forward_pre_hook

import auditor
from auditor._audit.run import drawing as running
from auditor._diffusion.model import DiffusionModel
from auditor._journal.lines import BatchLine, HalvedLine, NoteLine
from auditor.report import Outcome, Report
from tests.conftest import short_policy
from tests.faults.runs import QUICK, SMALL, batches, drawn_twice, lines_of

pytestmark = pytest.mark.usefixtures("nano")

CPU = RuntimeError(
    "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."
)
ERRORS = {"cpu": CPU, "cuda": torch.OutOfMemoryError("CUDA out of memory."), "python": MemoryError()}

Room = Callable[[DiffusionModel], int]
"""How many images a model can draw at once."""


@pytest.fixture
def audit(
    erased: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_cache: Path
) -> Callable[..., Report]:
    """A small audit on a machine with ``room``."""
    whole = running.draw

    def run(room: Room, error: BaseException = CPU, **changes: object) -> Report:
        def draw(
            model: DiffusionModel, prompts: Sequence[str], *more: Any, **named: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            if len(prompts) > room(model):
                raise error
            return whole(model, prompts, *more, **named)

        monkeypatch.setattr(running, "draw", draw)
        policy = short_policy(**{"budget": SMALL, "sampler": QUICK | {"batch": 12}} | changes)
        return auditor.audit(str(erased), policy, tmp_path / "run", cache=shared_cache)

    return run


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("memory")


def halved(out: Path) -> dict[str, int]:
    """The arms whose batches were halved, and what was left of them."""
    return {line.arm: line.batch for line in lines_of(out) if isinstance(line, HalvedLine)}


def sham_of(report: Report) -> bool | None:
    return next(control.passed for control in report.controls if control.name == "sham")


def is_base(model: DiffusionModel, erased: Path) -> bool:
    from auditor._checkpoint import open_checkpoint

    return model.digest != open_checkpoint(str(erased)).digest


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "cpu" else pytest.mark.science) for kind in ERRORS]
)  # that all kinds are known for what they are: tests/diffusion/test_memory.py
def test_a_batch_that_does_not_fit_is_halved_and_the_audit_goes_on(
    audit: Callable[..., Report], tmp_path: Path, kind: str
) -> None:
    report = audit(
        lambda model: 6,
        ERRORS[kind],
        sampler=QUICK | {"batch": 12, "guidance": 4.0 + 0.5 * list(ERRORS).index(kind)},
    )
    assert report.verdict.outcome is Outcome.INCONCLUSIVE and report.ledger.whole
    assert halved(tmp_path / "run") == {
        "base": 6,
        "erased": 4,
        "in-domain-lora": 6,
    }  # its first batch is of 8
    assert sham_of(report) is True
    sizes = [len(samples) for _, samples in batches(tmp_path / "run")]
    assert max(sizes) == 6  # what was planned whole was planned anew: a line holds what was drawn together
    assert drawn_twice(tmp_path / "run") == []


def test_an_arm_of_which_no_image_fits_is_an_error_and_the_others_go_on(
    audit: Callable[..., Report], erased: Path, tmp_path: Path
) -> None:
    """The erased model has no room for an image while its own arm is drawn; later the probed arm has."""
    journal = tmp_path / "run" / "journal.jsonl"

    def room(model: DiffusionModel) -> int:
        broken = journal.exists() and b'"kind":"error"' in journal.read_bytes()
        return 12 if broken or is_base(model, erased) else 0

    report = audit(room)
    assert report.verdict.outcome is Outcome.ERROR
    assert len(report.verdict.reasons) == 1 and report.verdict.reasons[0].startswith(
        "erased: Memory ran out, also for the smallest batch"
    )
    assert halved(tmp_path / "run") == {"erased": 1}
    drawn = {cell.arm: cell.n for cell in report.cells}
    assert drawn["in-domain-lora"] == drawn["base"] == 10 and drawn["erased"] == 0
    mended = audit(lambda model: 12)
    assert (
        mended.verdict.outcome is Outcome.INCONCLUSIVE and mended.ledger.whole and sham_of(mended) is not None
    )


def test_a_machine_without_room_for_one_image_is_an_error_in_every_arm(audit: Callable[..., Report]) -> None:
    report = audit(lambda model: 0, sampler=QUICK | {"batch": 12, "guidance": 3.0})
    assert report.verdict.outcome is Outcome.ERROR
    assert [reason.split(":")[0] for reason in report.verdict.reasons] == ["base", "erased", "in-domain-lora"]
    assert all("Memory ran out" in reason for reason in report.verdict.reasons)


def test_images_that_could_not_be_scored_are_drawn_again_in_batches_that_fit(
    audit: Callable[..., Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detector failed on every image of batches of twelve, and when the run goes on there is room for
    six."""
    with monkeypatch.context() as patch:
        patch.setattr("auditor.builtins.detectors.clip_zero_shot.ClipZeroShot.detect", None)
        assert audit(lambda model: 12).verdict.outcome is Outcome.ERROR
    audit(lambda model: 6)  # the first batch of each arm tells how much room there is
    report = audit(lambda model: 6)
    assert report.verdict.outcome is Outcome.INCONCLUSIVE and report.ledger.whole, report.verdict.reasons
    assert {len(line.samples) for line in lines_of(tmp_path / "run") if isinstance(line, BatchLine)} >= {
        12,
        6,
    }


def test_training_that_does_not_fit_is_an_error_of_its_arm(
    audit: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    for way in ("finetune", "together"):
        monkeypatch.setattr(f"auditor._diffusion.{way}.training_draw", full)
    report = audit(lambda model: 12)
    assert report.verdict.outcome is Outcome.ERROR
    assert len(report.verdict.reasons) == 1 and "in-domain-lora: " in report.verdict.reasons[0]
    assert "Memory ran out" in report.verdict.reasons[0]
    assert {cell.arm: cell.n for cell in report.cells}["erased"] == 10


def test_a_training_step_that_does_not_fit_is_taken_in_passes_and_said(
    audit: Callable[..., Report], tmp_path: Path
) -> None:
    """A card that trains on two rows at once: neither a company fits nor a probe alone with its batch of
    four."""

    def narrow(module: torch.nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, UNet2DConditionModel) and torch.is_grad_enabled() and len(given[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = register_module_forward_pre_hook(narrow)
    try:
        report = audit(lambda model: 12)
    finally:
        handle.remove()
    assert report.verdict.outcome is Outcome.INCONCLUSIVE and report.ledger.whole, report.verdict.reasons
    notes = [line.text for line in lines_of(tmp_path / "run") if isinstance(line, NoteLine)]
    assert "There is no room for several probes at once: each is trained alone." in notes
    (said,) = [note for note in notes if note.startswith("Memory ran out while in-domain-lora was trained: ")]
    assert "of a step's images 2 went through the denoiser at once" in said
    assert said in report.provenance.warnings
