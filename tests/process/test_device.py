"""One device for a process: named by a person, or found."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import precision_of
from auditor._cli import cli
from auditor._process import device
from auditor.errors import UsageError


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Two GPUs, as far as torch says; what was made the current one."""
    current = [0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index=None: f"Card {index}")
    return current


def ask(monkeypatch: pytest.MonkeyPatch, name: str) -> torch.device:
    monkeypatch.setenv(device.VARIABLE, name)
    return device.best_device()


def test_a_gpu_is_taken_where_there_is_one_and_a_named_one_becomes_the_current(
    monkeypatch: pytest.MonkeyPatch, cards: list[int]
) -> None:
    assert ask(monkeypatch, "") == ask(monkeypatch, "auto") == torch.device("cuda") and cards == [0]
    assert ask(monkeypatch, "cuda:0") == torch.device("cuda", 0) and cards == [0]
    assert ask(monkeypatch, " CUDA:1") == torch.device("cuda", 1) and cards == [0, 1]
    assert ask(monkeypatch, "cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match=r"no GPU cuda:2; there is cuda:0 \(Card 0\), cuda:1 \(Card 1\)"):
        ask(monkeypatch, "cuda:2")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:x", "1", "mps"])
def test_what_names_no_device_is_said(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(UsageError, match="is none; auto, cpu, cuda or cuda:NUMBER is right"):
        ask(monkeypatch, name)
    monkeypatch.delenv(device.VARIABLE)
    found = CliRunner().invoke(cli, ["plan", "--policy", "micro-person", "--device", name])
    assert isinstance(found.exception, UsageError) and device.asked_device() == "auto"


def test_a_gpu_that_is_named_and_not_there_is_never_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert ask(monkeypatch, "auto") == torch.device("cpu")
    with pytest.raises(UsageError, match="There is no GPU to run on: "):
        ask(monkeypatch, "cuda")


def test_a_cpu_that_nobody_asked_for_is_said_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def init() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12040). Please update")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv(device.VARIABLE, raising=False)
    assert (
        "no GPU: The NVIDIA driver on your system is too old (found version 12040) (torch was built for"
        in (device.device_said())
    )
    monkeypatch.setenv(device.VARIABLE, "cpu")
    assert device.device_said() == device.device_kind()


def test_a_checkpoint_of_true_size_does_not_start_on_a_cpu_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv(device.VARIABLE, raising=False)
    with pytest.raises(UsageError, match=r"m has 860 M parameters, and there is no GPU .*--device cpu"):
        device.refuse_true_size("m", 860_000_000)
    device.refuse_true_size("m", open_checkpoint("micro").parameters)
    monkeypatch.setenv(device.VARIABLE, "cpu")
    device.refuse_true_size("m", 860_000_000)


@pytest.mark.parametrize(
    ("bfloat16", "capability", "wanted"),
    [
        (True, (8, 0), torch.bfloat16),
        (False, (7, 5), torch.float16),
        (False, (7, 0), torch.float16),
        (False, (6, 1), torch.float32),
    ],
)
def test_what_a_gpu_emulates_is_not_chosen(
    monkeypatch: pytest.MonkeyPatch, bfloat16: bool, capability: tuple[int, int], wanted: torch.dtype
) -> None:
    def is_supported(including_emulation: bool = True) -> bool:
        return bfloat16 or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    assert precision_of("auto", torch.device("cuda")) is wanted
    assert precision_of("float32", torch.device("cuda")) is torch.float32
    assert precision_of("auto", torch.device("cpu")) is torch.float32
