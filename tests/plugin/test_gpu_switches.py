"""What a plugin switches for a GPU is put back after its call, and breaks no other plugin's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from auditor.errors import PluginError
from auditor.plugin import _door as door
from auditor.plugin._loader import make_plugin

PROBE = make_plugin("probes", "in-domain", {})


def put_back(module: Any, name: str, value: object) -> tuple[object, object, str | None]:
    """A switch before and after a call that changes it, and what the next call says."""
    before, said = getattr(module, name), None
    try:
        for action in (lambda: setattr(module, name, value), _nothing):
            _call(action)
        after = getattr(module, name)
    except PluginError as error:
        after, said = getattr(module, name), str(error)
    finally:
        setattr(module, name, before)
    return before, after, said


def _nothing() -> None:
    """What the next plugin does."""


def _call(action: Callable[[], None]) -> None:
    door.call(PROBE, action)


def test_tf32_in_products_is_put_back() -> None:
    before, after, said = put_back(torch.backends.cuda.matmul, "fp32_precision", "tf32")
    assert said is None and after == before


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (torch.backends.cudnn, "allow_tf32", False),
        (torch.backends.cudnn.conv, "fp32_precision", "ieee"),
        (torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False),
    ],
)
def test_other_switches_are_put_back(module: Any, name: str, value: object) -> None:
    before, after, said = put_back(module, name, value)
    assert said is None and after == before != value


def test_a_stopwatch_that_chooses_kernels_is_put_back() -> None:
    assert put_back(torch.backends.cudnn, "benchmark", True) == (False, False, None)


def test_both_kinds_of_switches_at_once_are_put_back() -> None:
    def switch() -> None:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        torch.backends.cudnn.conv.fp32_precision = "ieee"
        torch.backends.fp32_precision = "tf32"
        torch.set_float32_matmul_precision("medium")

    before = state()
    for action in (switch, _nothing, switch):
        _call(action)
    assert state() == before


def state() -> list[object]:
    """What the switches say, the older ones too: they raise where the newer ones contradict them."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    newer = [torch.backends.fp32_precision, cuda.fp32_precision, cudnn.conv.fp32_precision]
    return [torch.get_float32_matmul_precision(), cuda.allow_tf32, cudnn.allow_tf32, *newer]
