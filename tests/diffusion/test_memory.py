"""Memory that runs out is known by every word for it, and what did not fit is computed in smaller parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._diffusion.finetune import Examples, denoising_losses
from auditor._diffusion.memory import in_parts, is_out_of_memory
from auditor._diffusion.model import DiffusionModel
from tests.diffusion.narrow import narrow

pytestmark = pytest.mark.usefixtures("nano")


@pytest.fixture
def model(nano: None) -> DiffusionModel:
    return load_model(open_checkpoint("micro"))


def images(count: int, size: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def caused(error: BaseException, by: BaseException) -> BaseException:
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("error", "known"),
    [
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"), True),
        (OSError("[Errno 12] Cannot allocate memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR: cannot alloc a workspace"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), False),
        (RuntimeError("Unable to find an engine to execute this computation"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (caused(RuntimeError("the plugin 'x' raised MemoryError"), MemoryError()), True),
        (RuntimeError("expected scalar type Float but found Half"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("no"), False),
        (caused(ValueError("no"), KeyError("x")), False),
    ],
)
def test_every_word_for_no_memory_is_known(error: BaseException, known: bool) -> None:
    assert is_out_of_memory(error) is known


def parts(room: int, count: int, size: int) -> tuple[list[int], list[int]]:
    """The slices that were asked for, by length, and the rows that came back."""
    asked: list[int] = []

    def work(rows: slice) -> range:
        asked.append(rows.stop - rows.start)
        if asked[-1] > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return range(rows.start, rows.stop)

    return asked, [row for part in in_parts(work, count, size) for row in part]


@pytest.mark.parametrize(
    ("room", "count", "size", "asked"),
    [
        (9, 10, 4, [4, 4, 2]),
        (3, 10, 8, [8, 4, 2, 2, 2, 2, 2]),
        (1, 3, 3, [3, 2, 1, 1, 1]),
        (5, 2, 64, [2]),
        (5, 0, 64, []),
    ],
)
def test_parts_are_halved_and_stay_halved(room: int, count: int, size: int, asked: list[int]) -> None:
    assert parts(room, count, size) == (asked, list(range(count)))


def test_what_does_not_hold_one_row_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        parts(0, 4, 4)


def test_other_errors_are_not_tried_again() -> None:
    def work(rows: slice) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        in_parts(work, 4, 4)


@pytest.mark.parametrize(("size", "at_once"), [(32, [64, 6]), (256, [16, 1]), (512, [4, 1])])
def test_a_million_pixels_are_encoded_at_once(model: DiffusionModel, size: int, at_once: list[int]) -> None:
    first = narrow(model.vae.encoder.conv_in, 64)
    model.encode(images(sum(at_once), size))
    assert first.asked == at_once


def test_what_cannot_be_encoded_at_once_is_encoded_in_parts(model: DiffusionModel) -> None:
    whole, pictures = model.encode(images(8)), images(8)
    first = narrow(model.vae.encoder.conv_in, 3)
    parted = model.encode(pictures)
    assert first.asked == [8, 4, 2, 2, 2, 2]
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(whole, parted, strict=True))


def test_losses_are_measured_in_parts_where_memory_runs_out(model: DiffusionModel) -> None:
    examples = Examples.of(model, images(4), ["a photo of the lamp"] * 4)
    whole = denoising_losses(model, examples, 3, batch=16)
    first = narrow(model.unet.conv_in, 5)
    parted = denoising_losses(model, examples, 3, batch=16)
    assert first.asked == [16, 8, 4] + [4] * 7
    assert torch.allclose(whole, parted, rtol=1e-5)
