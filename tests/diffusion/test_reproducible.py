"""Training on a GPU takes algorithms that give the same bits, and what was set before is set afterwards."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from auditor._diffusion.reproducible import reproducible

GPU = torch.device("cuda", 0)


def settings() -> tuple[bool, ...]:
    return (
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


def test_on_a_gpu_they_are_set_and_put_back() -> None:
    before = settings()
    with reproducible(GPU):
        assert settings() == (True, False, True, True, False)
        with reproducible(GPU):
            pass
        assert settings() == (True, False, True, True, False)
    assert settings() == before


def test_they_are_put_back_as_they_were_also_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    torch.use_deterministic_algorithms(True)
    try:
        before = settings()
        with pytest.raises(ZeroDivisionError), reproducible(GPU):
            _ = 1 / 0
        assert settings() == before == (False, True, True, False, True)
    finally:
        torch.use_deterministic_algorithms(False)


def test_on_a_cpu_nothing_is_set() -> None:
    before = settings()
    with reproducible(torch.device("cpu")):
        assert settings() == before


@pytest.mark.parametrize(("given", "found"), [(None, ":4096:8"), (":16:8", ":16:8")])
def test_the_workspace_of_cublas_is_set_unless_the_user_has(given: str | None, found: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    environment |= {} if given is None else {"CUBLAS_WORKSPACE_CONFIG": given}
    code = "import os, auditor; print(os.environ['CUBLAS_WORKSPACE_CONFIG'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == found
